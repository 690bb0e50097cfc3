"""How a layer is packed: the same bytes for the same files, in the form of tar."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterator

import pytest

from imagemill.builders.graft.copying import Placed
from imagemill.builders.graft.layers import Layer, Node, read_layer
from imagemill.builders.graft.packing import header, is_archive, pack
from imagemill.context import Entry
from imagemill.context.tarball import MTIME
from imagemill.ports import Quiet

LONG = "folder/" * 40


@pytest.mark.parametrize(
    "node",
    [
        Node("file", 0o644, 5, 6, "", 700),
        Node("file", 0o4755, 1 << 22, 0, "", 1 << 34),
        Node("dir", 0o700, 0, 10001),
        Node("link", 0o777, 0, 0, "../a b"),
        Node("link", 0o777, 0, 0, LONG),
    ],
)
@pytest.mark.parametrize("path", ["a", "é/\udcff", LONG + "a", "x" * 99, "x" * 100])
def test_a_header_is_read_as_it_was_meant(path: str, node: Node) -> None:
    with tarfile.open(
        fileobj=io.BytesIO(header(path, node)), encoding="utf-8", errors="surrogateescape"
    ) as archive:
        info = archive.next()
    assert info is not None
    assert (info.name, info.mode, info.uid, info.gid) == (path, node.mode, node.uid, node.gid)
    assert (info.linkname, info.size, info.mtime) == (node.target, node.size, MTIME)
    assert (info.isreg(), info.isdir(), info.issym()) == (
        node.kind == "file",
        node.kind == "dir",
        node.kind == "link",
    )


def test_short_headers_are_those_of_tarfile() -> None:
    for node in (Node("file", 0o644, 5, 6, "", 7), Node("dir", 0o755, 0, 0)):
        info = tarfile.TarInfo("a/b")
        info.type = tarfile.DIRTYPE if node.kind == "dir" else tarfile.REGTYPE
        info.mode, info.uid, info.gid, info.size = node.mode, node.uid, node.gid, node.size
        info.mtime = MTIME
        theirs = info.tobuf(tarfile.USTAR_FORMAT)
        mine = tarfile.TarInfo.frombuf(header("a/b", node), "utf-8", "strict")
        assert mine.get_info() == tarfile.TarInfo.frombuf(theirs, "utf-8", "strict").get_info()
        assert len(header("a/b", node)) == tarfile.BLOCKSIZE


def test_the_same_files_are_the_same_bytes_however_they_are_read() -> None:
    content = bytes(range(256)) * 20_000
    changes = {
        path: Placed(node, Entry("file", path.encode()))
        for path, node in (
            ("b", Node("file", 0o644, 0, 0, "", len(content))),
            ("a/c", Node("file", 0o644, 0, 0, "", 3)),
            ("a", Node("dir", 0o755, 0, 0)),
        )
    }

    def read(chunk: int, path: bytes) -> Iterator[bytes]:
        data = content if path == b"b" else b"abc"
        return iter([data[at : at + chunk] for at in range(0, len(data), chunk)])

    def written(chunk: int, order: list[str]) -> bytes:
        out = io.BytesIO()
        packed = pack({p: changes[p] for p in order}, lambda path: read(chunk, path), out)
        stream = io.BufferedReader(io.BytesIO(out.getvalue()))
        layer = read_layer(stream, packed.diff_id, False, Quiet())  # type: ignore[arg-type]
        assert layer == Layer({path: changes[path].node for path in sorted(changes)})
        assert list(layer.entries) == ["a", "a/c", "b"]
        assert packed.size == len(out.getvalue())
        return out.getvalue()

    assert written(1 << 20, ["a", "b", "a/c"]) == written(1000, ["b", "a/c", "a"])


@pytest.mark.parametrize("packed", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_what_add_would_unpack_is_known(packed: Callable[[bytes], bytes]) -> None:
    assert is_archive(packed(header("a", Node("file", 0o644, 0, 0)) + bytes(1024)))


def test_what_zstd_skips_may_come_before_an_archive() -> None:
    assert is_archive(b"\x5f\x2a\x4d\x18\x04\0\0\0abcd\x28\xb5\x2f\xfd")


@pytest.mark.parametrize("content", [b"", b"text", bytes(2000), b"x" * 2000])
def test_other_files_are_no_archives(content: bytes) -> None:
    assert not is_archive(content)
