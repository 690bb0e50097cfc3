"""The packed context: its layout and its bytes, that it comes out as it went in, and that nothing
unsafe comes out.
"""

import gzip
import hashlib
import io
import os
import platform
import random
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import hardship
import trees
from imagemill import context
from imagemill.context.tarball import MTIME, Writer
from imagemill.errors import BuildCancelled, OperatorError
from imagemill.ports import Quiet


def packed(source: Path, dockerfile: str | None = None) -> bytes:
    out = io.BytesIO()
    context.pack(source, dockerfile, out, Quiet())
    return out.getvalue()


def unpacked(data: bytes, folder: Path) -> Path:
    context.unpack(io.BytesIO(data), folder, Quiet())
    return folder


def listing(folder: Path) -> list[tuple[bytes, int, int, bytes]]:
    """Path, mode, time and content or target of all that is in a folder."""
    entries = []
    for parent, folders, files in os.walk(os.fsencode(folder)):
        for path in (os.path.join(parent, name) for name in folders + files):  # noqa: PTH118
            status = os.lstat(path)
            content = b""
            if os.path.islink(path):  # noqa: PTH114
                content = os.readlink(path)  # noqa: PTH115
            elif os.path.isfile(path):  # noqa: PTH113
                content = Path(os.fsdecode(path)).read_bytes()
            entries.append(
                (
                    os.path.relpath(path, os.fsencode(folder)),
                    status.st_mode,
                    int(status.st_mtime),
                    content,
                )
            )
    return sorted(entries)


DAMAGED = "The packed context is damaged: "
LONG = "n" * 120 + "/" + "é" * 100


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return trees.make(
        tmp_path / "source",
        {
            "docker/Dockerfile": trees.DOCKERFILE,
            ".dockerignore": "docker\nignored\n.dockerignore",
            "ignored": "ignored",
            "a/b": "content",
            "run*": "#!/bin/sh\n",
            "empty/": None,
            "link@": "a/b",
            "absolute@": "/bin/sh",
            LONG: "long name",
            "long@": LONG,
            b"\xff\n": "not UTF-8",
            "blocks": random.Random(1).randbytes(3 << 19) * 2,
        },
    )


def test_layout_of_the_packed_context(source: Path) -> None:
    with tarfile.open(
        fileobj=io.BytesIO(packed(source, "docker/Dockerfile")), mode="r:gz"
    ) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [
            "Dockerfile",
            "Dockerfile.dockerignore",
            "context",
            "context/a",
            "context/a/b",
            "context/absolute",
            "context/blocks",
            "context/empty",
            "context/link",
            "context/long",
            f"context/{'n' * 120}",
            f"context/{LONG}",
            "context/run",
            "context/\udcff\n",
        ]
        assert archive.extractfile("Dockerfile").read().decode() == trees.DOCKERFILE  # type: ignore[union-attr]
        assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {
            (0, 0, "", "", MTIME)
        }
        assert [member.name for member in members if member.mode == 0o755 and member.isfile()] == [
            "context/run"
        ]
        assert {member.mode for member in members if member.isdir()} == {0o755}


def test_ignore_file_of_the_packed_context_ignores_nothing_and_is_not_empty(
    source: Path, tmp_path: Path
) -> None:
    content = (
        unpacked(packed(source, "docker/Dockerfile"), tmp_path / "out") / "Dockerfile.dockerignore"
    ).read_text()
    assert content.startswith("# ")
    assert content.count("\n") == 1


def test_packed_bytes_are_the_same_everywhere(source: Path) -> None:
    """Golden: other bytes for the same source are a change of the format."""
    data = packed(source, "docker/Dockerfile")
    assert (
        hashlib.sha256(gzip.decompress(data)).hexdigest()
        == "19432bb9456b330d2d36057f8a1cb9986900e42617b0d735ed6b3a9f758890b5"
    )
    if platform.machine() == "x86_64":
        assert (
            hashlib.sha256(data).hexdigest()
            == "f2f867a745371afaa1d3a8eaea61feb2d3c59283bc55864150847d5cebe0ed1b"
        )


def test_packed_bytes_depend_on_the_manifest_alone(source: Path, tmp_path: Path) -> None:
    before = packed(source, "docker/Dockerfile")
    (source / "ignored").write_text("changed")
    for path in source.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
    assert packed(source.rename(tmp_path / "elsewhere"), "docker/Dockerfile") == before


@pytest.mark.parametrize(
    "size", [0, 1, 511, 512, 513, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20]
)
def test_files_of_all_sizes_come_out_as_they_went_in(tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    data = packed(trees.make(tmp_path / "in", {"Dockerfile": "", "file": content, "next": "next"}))
    out = unpacked(data, tmp_path / "out")
    assert (out / "context/file").read_bytes() == content
    assert (out / "context/next").read_text() == "next"


def test_manifest_of_what_was_packed_is_that_of_the_source(source: Path) -> None:
    assert context.pack(source, "docker/Dockerfile", io.BytesIO(), Quiet()) == context.manifest(
        source, "docker/Dockerfile", Quiet()
    )


def test_manifest_of_what_was_packed_is_of_the_bytes_that_were_packed(
    source: Path, tmp_path: Path
) -> None:
    """The source changes after each file; what was packed is what the manifest says all the
    same.
    """

    class Scribbler(Quiet):
        def check(self) -> None:
            with (source / "run").open("a") as file:
                file.write("x")

    out = io.BytesIO()
    manifest = context.pack(source, "docker/Dockerfile", out, Scribbler())
    again = unpacked(out.getvalue(), tmp_path / "out")
    assert context.manifest(again / "context", "run", Quiet()).entries == manifest.entries


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_what_was_packed_comes_out_as_it_went_in(source: Path, tmp_path: Path, umask: int) -> None:
    data = packed(source, "docker/Dockerfile")
    before = os.umask(umask)
    try:
        out = unpacked(data, tmp_path / "out" / "deeper")
    finally:
        os.umask(before)
    assert (
        context.manifest(out / "context", "run", Quiet()).entries
        == context.manifest(source, "docker/Dockerfile", Quiet()).entries
    )
    assert {mode & 0o777 for _, mode, _, _ in listing(out)} == {0o644, 0o755, 0o777}
    assert {time for _, _, time, _ in listing(out)} == {MTIME}


def test_gnu_tar_unpacks_the_same(source: Path, tmp_path: Path) -> None:
    data = packed(source, "docker/Dockerfile")
    (tmp_path / "tar").mkdir()
    subprocess.run(["tar", "-xzpf", "-", "-C", tmp_path / "tar"], input=data, check=True)
    assert listing(tmp_path / "tar") == listing(unpacked(data, tmp_path / "out"))


def test_size_beyond_what_old_tar_headers_hold_is_kept() -> None:
    out = io.BytesIO()
    with Writer(out) as writer:
        writer.file(b"huge", False, 9 << 30, b"")
    with tarfile.open(fileobj=io.BytesIO(out.getvalue()), mode="r|gz") as archive:
        member = archive.next()
    assert member is not None
    assert member.size == 9 << 30


def test_error_of_the_stream_that_is_packed_into_comes_through(source: Path) -> None:
    before = threading.active_count()
    with (
        pytest.raises(OSError, match="No space left on device"),
        Path("/dev/full").open("wb") as full,
    ):
        context.pack(source, "docker/Dockerfile", full, Quiet())
    assert threading.active_count() == before


def test_full_disk_is_told_when_a_context_is_unpacked(source: Path, tmp_path: Path) -> None:
    data = packed(source, "docker/Dockerfile")
    with hardship.small_disk(tmp_path / "disk") as disk, pytest.raises(OperatorError) as raised:
        unpacked(data, disk / "out")
    assert raised.value.message.startswith(f"There is no room left in {tmp_path}/disk/out: ")
    assert raised.value.hint.startswith("free some space there")


@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.9, 0.999])
def test_context_that_is_cut_off_is_told(source: Path, tmp_path: Path, part: float) -> None:
    data = packed(source, "docker/Dockerfile")
    with pytest.raises(OperatorError, match=DAMAGED) as raised:
        unpacked(data[: int(len(data) * part)], tmp_path / "out")
    assert raised.value.hint == "delete it from the context store and build again"


@pytest.mark.parametrize("at", [0, 12, 0.001, 0.5, -5, -1])
def test_context_with_a_byte_changed_is_told(source: Path, tmp_path: Path, at: float) -> None:
    data = bytearray(packed(source, "docker/Dockerfile"))
    data[int(at * len(data)) if isinstance(at, float) else int(at)] ^= 0xFF
    with pytest.raises(OperatorError, match=DAMAGED):
        unpacked(bytes(data), tmp_path / "out")


def test_context_with_something_behind_it_is_told(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=DAMAGED):
        unpacked(packed(source, "docker/Dockerfile") + b"something", tmp_path / "out")


def test_checksum_is_looked_at_also_far_behind_the_end_mark(tmp_path: Path) -> None:
    tar = gzip.decompress(packed(trees.make(tmp_path / "source", {"Dockerfile": ""})))
    data = bytearray(gzip.compress(tar + bytes(5 << 20)))
    assert (unpacked(bytes(data), tmp_path / "whole") / "context/Dockerfile").exists()
    data[-8] ^= 0xFF
    with pytest.raises(OperatorError, match=DAMAGED):
        unpacked(bytes(data), tmp_path / "damaged")


def test_negative_size_is_refused(tmp_path: Path) -> None:
    info = member("context/a")
    info.size = -512
    with pytest.raises(OperatorError, match=f"{DAMAGED}'context/a' has a negative size"):
        unpacked(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)), tmp_path / "out")


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        [member("../outside")],
        [member("context/../../outside")],
        [member("/tmp/outside")],
        [member("context", tarfile.SYMTYPE, "/"), member("context/outside")],
        [member("context", tarfile.SYMTYPE, "../")],
        [member("context/link", tarfile.SYMTYPE, "../../outside"), member("context/link/a")],
        [member("context/a"), member("context/a/b")],
        [member("context/a", tarfile.DIRTYPE), member("context/a")],
        [member("context/link", tarfile.LNKTYPE, "/etc/passwd")],
        [member("context/null", tarfile.CHRTYPE)],
        [member("context/pipe", tarfile.FIFOTYPE)],
        [member("")],
        [member("n" * 70_000)],
    ],
    ids=lambda members: members[-1].name[:30],
)
def test_what_no_packed_context_has_is_refused(
    tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        for info in members:
            archive.addfile(info)
    with pytest.raises(OperatorError, match=DAMAGED):
        unpacked(out.getvalue(), tmp_path / "folder" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["out"]


def test_what_is_no_packed_context_at_all_is_told(tmp_path: Path) -> None:
    for data in (b"", b"hello", b"\x1f\x8b", bytes(1024)):
        with pytest.raises(OperatorError, match=DAMAGED):
            unpacked(data, tmp_path / "out")


def test_packing_and_unpacking_ask_whether_to_go_on(source: Path, tmp_path: Path) -> None:
    class Stopped(Quiet):
        def check(self) -> None:
            raise BuildCancelled("stop")

    data = packed(source, "docker/Dockerfile")
    attempts: list[Callable[[], object]] = [
        lambda: context.manifest(source, "docker/Dockerfile", Stopped()),
        lambda: context.pack(source, "docker/Dockerfile", io.BytesIO(), Stopped()),
        lambda: context.unpack(io.BytesIO(data), tmp_path / "out", Stopped()),
    ]
    before = threading.active_count()
    for attempt in attempts:
        with pytest.raises(BuildCancelled):
            attempt()
    assert threading.active_count() == before
