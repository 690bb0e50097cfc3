"""What every source of files does: the folder it fetches is the one that was meant, whatever it
came in.
"""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import trees
from imagemill import context
from imagemill.errors import PermissionDenied, UserError
from imagemill.ports import Quiet
from imagemill.sources import open_source
from imagemill.sources.options import SourceOptions

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENTRIES: dict[str | bytes, str | bytes | None] = {
    "Dockerfile": trees.DOCKERFILE,
    "a/b": "content",
    "run*": "#!/bin/sh\n",
    "empty/": None,
    "link@": "a/b",
    "a/up@": "../run",
    "absolute@": "/bin/sh",
    "n" * 120 + "/é": "long name",
    "x" * 200: os.urandom(3_000_000),
}


def as_folder(folder: Path) -> str:
    return str(folder)


def as_uri(folder: Path) -> str:
    return folder.as_uri()


def as_tar(folder: Path, *options: str) -> str:
    archive = folder.with_suffix(".tar")
    subprocess.run(["tar", *options, "-cf", archive, "-C", folder, "."], check=True)
    return str(archive)


def as_posix_tar(folder: Path) -> str:
    return as_tar(folder, "--format=posix")


def as_tar_gz(folder: Path) -> str:
    return as_tar(folder, "-z")


def as_tar_zst(folder: Path) -> str:
    archive = Path(as_tar(folder)).replace(folder.with_suffix(".tar.zst"))
    archive.write_bytes(zstd.compress(archive.read_bytes()))
    return str(archive)


def as_tar_of_names(folder: Path) -> str:
    """Without folders in it, but for the empty one."""
    archive = folder.with_suffix(".tar")
    names = [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    ]
    subprocess.run(["tar", "-cf", archive, "-C", folder, *names, "empty"], check=True)
    return str(archive)


def as_zip(folder: Path) -> str:
    """As Info-ZIP's `zip --symlinks -r` makes it: symbolic links are entries that hold their
    target.
    """
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.is_symlink():
                info = zipfile.ZipInfo(name)
                info.create_system = 3
                info.external_attr = path.lstat().st_mode << 16
                out.writestr(info, str(path.readlink()))
            else:
                out.write(path, name)
    return str(archive)


KINDS = [as_folder, as_uri, as_tar, as_posix_tar, as_tar_gz, as_tar_zst, as_tar_of_names, as_zip]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """Each way in which a folder can be given."""
    made: Callable[[Path], str] = request.param
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return trees.make(tmp_path / "data" / "source", ENTRIES)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def test_source_has_one_hash_in_whatever_it_comes(
    kind: Callable[[Path], str], folder: Path, scratch: Path, tmp_path: Path
) -> None:
    source = open_source(kind(folder), SourceOptions(roots=(tmp_path / "data",)))
    assert source.image is None
    fetched = source.fetch(scratch, Quiet())
    assert list(context.manifest(fetched, None, Quiet()).lines()) == list(
        context.manifest(folder, None, Quiet()).lines()
    )


def test_nothing_is_read_before_it_is_fetched(
    kind: Callable[[Path], str], folder: Path, tmp_path: Path
) -> None:
    text = kind(folder)
    (tmp_path / "data").rename(tmp_path / "gone")
    open_source(text, SourceOptions(roots=(tmp_path / "data",)))


def test_source_that_is_not_there_is_told(
    kind: Callable[[Path], str], folder: Path, scratch: Path, tmp_path: Path
) -> None:
    text = kind(folder)
    (tmp_path / "data").rename(tmp_path / "gone")
    with pytest.raises(UserError) as raised:
        open_source(text, SourceOptions(roots=(tmp_path / "data",))).fetch(scratch, Quiet())
    assert raised.value.message.startswith(
        f"There is no folder and no archive at {tmp_path}/data/source"
    )
    assert raised.value.message.endswith(" on the worker")
    assert raised.value.hint.startswith("the path has to exist on the worker")


@pytest.mark.parametrize(
    "roots", [(), ("other",), ("dat",), ("data/source.tar/x", "data/source/a")]
)
def test_source_outside_the_roots_is_refused(
    kind: Callable[[Path], str], folder: Path, scratch: Path, tmp_path: Path, roots: tuple[str, ...]
) -> None:
    with pytest.raises(PermissionDenied) as raised:
        open_source(
            kind(folder), SourceOptions(roots=tuple(tmp_path / root for root in roots))
        ).fetch(scratch, Quiet())
    assert raised.value.message.startswith(
        f"The worker may not read sources at {tmp_path}/data/source"
    )
    assert "IMAGEMILL_SOURCE_ROOTS" in raised.value.hint
    assert list(scratch.iterdir()) == []


def test_link_in_the_roots_to_a_source_outside_is_refused(
    kind: Callable[[Path], str], folder: Path, scratch: Path, tmp_path: Path
) -> None:
    (tmp_path / "roots").mkdir()
    name = Path(kind(folder).removeprefix("file://")).name
    (tmp_path / "roots" / name).symlink_to(tmp_path / "data" / name)
    source = open_source(
        f"{tmp_path}/roots/../roots/{name}", SourceOptions(roots=(tmp_path / "roots",))
    )
    with pytest.raises(PermissionDenied):
        source.fetch(scratch, Quiet())


def test_roots_may_be_links_themselves(
    kind: Callable[[Path], str], folder: Path, scratch: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data")
    name = Path(kind(folder).removeprefix("file://")).name
    open_source(str(tmp_path / "data" / name), SourceOptions(roots=(tmp_path / "link",))).fetch(
        scratch, Quiet()
    )


def test_sources_do_not_write_beside_their_scratch_folder(
    kind: Callable[[Path], str], folder: Path, scratch: Path, tmp_path: Path
) -> None:
    text = kind(folder)
    before = sorted(tmp_path.rglob("*"))
    open_source(text, SourceOptions(roots=(tmp_path,))).fetch(scratch, Quiet())
    assert [path for path in sorted(tmp_path.rglob("*")) if scratch not in path.parents] == before


def test_importing_the_sources_imports_no_adapter() -> None:
    code = "import sys, imagemill.sources; print(*[m for m in sys.modules if m.startswith('imagemill.sources.')])"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, check=True, text=True
    )
    shared = ("git", "git.url", "host_credentials", "options")
    assert set(done.stdout.split()) == {f"imagemill.sources.{name}" for name in shared}
