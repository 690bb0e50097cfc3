"""How the text of a source is read, and what is no source at all."""

import hashlib
import tarfile
from pathlib import Path

import pytest

from imagemill.errors import PermissionDenied, UserError
from imagemill.ports import Quiet
from imagemill.reference import ImageReference
from imagemill.sources import open_source
from imagemill.sources.options import SourceOptions


def test_image_passes_through(tmp_path: Path) -> None:
    source = open_source("docker-image://ghcr.io/team/app:1.0", SourceOptions(roots=()))
    assert source.image == ImageReference.parse("ghcr.io/team/app:1.0")


def test_image_has_no_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is an image, with no files to read"):
        open_source("docker-image://busybox", SourceOptions(roots=())).fetch(tmp_path, Quiet())


@pytest.mark.parametrize(
    "text", ["docker-image://", "docker-image://UPPER", "docker-image://a:b:c"]
)
def test_image_that_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        open_source(text, SourceOptions(roots=()))


@pytest.mark.parametrize("text", ["ftp://host/x", "hdfs://host/x", "docker://image"])
def test_unknown_scheme_is_told_with_the_known_ones(text: str) -> None:
    with pytest.raises(UserError) as raised:
        open_source(text, SourceOptions(roots=()))
    assert raised.value.message == f"There is no kind of source {text.partition('://')[0]!r}"
    assert "docker-image, file, git" in raised.value.hint


def test_file_on_another_host_is_refused() -> None:
    with pytest.raises(UserError) as raised:
        open_source("file://host/source", SourceOptions(roots=(Path("/"),)))
    assert raised.value.message == "'file://host/source' is on another host"


@pytest.mark.parametrize(
    "text", ["source", ".", "./source", "../source", "", "file://", "~/source"]
)
def test_relative_path_is_refused(text: str) -> None:
    with pytest.raises(UserError) as raised:
        open_source(text, SourceOptions(roots=(Path("/"),)))
    assert raised.value.hint == "give an absolute one: workers run in other folders"


@pytest.mark.parametrize("scheme", ["file://", "FILE://localhost", ""])
def test_folder_may_be_given_as_path_or_uri(tmp_path: Path, scheme: str) -> None:
    (tmp_path / "a b").mkdir()
    path = f"{tmp_path}/a b" if not scheme else f"{scheme}{tmp_path}/a%20b"
    assert (
        open_source(path, SourceOptions(roots=(tmp_path,))).fetch(tmp_path, Quiet())
        == tmp_path / "a b"
    )


def test_what_lies_outside_the_roots_is_not_even_told_to_exist(tmp_path: Path) -> None:
    for path in ("/etc/passwd", "/etc/no-such-file"):
        with pytest.raises(PermissionDenied, match=f"The worker may not read sources at {path}; "):
            open_source(path, SourceOptions(roots=(tmp_path,))).fetch(tmp_path, Quiet())


def test_special_file_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder and no archive at /dev/null"):
        open_source("/dev/null", SourceOptions(roots=(Path("/"),))).fetch(tmp_path, Quiet())


def test_an_archive_may_have_to_have_a_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "f.py")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    options = SourceOptions(roots=(tmp_path,))
    right = open_source(f"{path.as_uri()}#sha256={sha256.upper()}", options)
    assert right.pinned(Quiet()) == f"{path.as_uri()}#sha256={sha256}"
    assert (right.fetch(tmp_path / "right", Quiet()) / "f.py").is_file()
    with pytest.raises(UserError, match="has the SHA-256") as raised:
        open_source(f"{path.as_uri()}#sha256={'0' * 64}", options).fetch(
            tmp_path / "wrong", Quiet()
        )
    assert sha256 in raised.value.message
    assert list((tmp_path / "wrong").iterdir()) == []
    with pytest.raises(UserError, match="is no option"):
        open_source(f"{path.as_uri()}#sha265={sha256}", options)
