"""Packs a layer: the same bytes for the same files, wherever and whenever it is packed."""

import hashlib
import tarfile
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Protocol

from isal import igzip_threaded, isal_zlib

from imagemill.builders.graft.copying import Placed
from imagemill.builders.graft.image import Blob
from imagemill.builders.graft.layers import Node
from imagemill.context.tarball import MTIME
from imagemill.files import zstd

_BLOCK = 1 << 20
_WORTH = 0.9
_PACKED = b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\x00"
"""How files begin that bzip2, gzip and xz have packed."""
_ENCODING = "utf-8", "surrogateescape"

Read = Callable[[bytes], Iterator[bytes]]
"""Yields the content of a file of the source, by its path."""


class _Writer(Protocol):
    def write(self, data: bytes | memoryview) -> object: ...


class _Counted:
    """A stream of which size and SHA-256 are taken while it is written."""

    def __init__(self, out: _Writer) -> None:
        self._out = out
        self.sha256, self.size = hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> int:
        self.sha256.update(data)
        self.size += len(data)
        self._out.write(data)
        return len(data)

    def flush(self) -> None: ...

    @property
    def digest(self) -> str:
        return f"sha256:{self.sha256.hexdigest()}"


def pack(changes: Mapping[str, Placed], source: Read, out: BinaryIO) -> Blob:
    """Write the layer, gzipped, to `out`; paths are sorted, times are those of packed contexts."""
    blob = _Counted(out)
    with igzip_threaded.open(  # type: ignore[no-untyped-call]
        blob, "wb", compresslevel=1, threads=1, block_size=_BLOCK
    ) as compressed:
        blocks = _Blocks(compressed)
        tar = _Counted(blocks)
        _write(tar, changes, source)
        blocks.end()
    return Blob(blob.digest, blob.size, tar.digest)


def store(changes: Mapping[str, Placed], source: Read, out: BinaryIO) -> Blob:
    """Write the layer, not compressed, to `out`."""
    tar = _Counted(out)
    _write(tar, changes, source)
    return Blob(tar.digest, tar.size, tar.digest, packed="")


def pays(content: Iterator[bytes]) -> bool:
    """Whether compressing saves enough of a file to be worth its time, by its beginning."""
    head = next(content, b"")
    return len(isal_zlib.compress(head, 1)) < _WORTH * len(head)


def is_archive(head: bytes) -> bool:
    """Whether ADD would unpack a file that begins like this, as docker tells it."""
    if head.startswith(_PACKED) or zstd.PACKED.match(head):
        return True
    if len(head) < tarfile.BLOCKSIZE:
        return False
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], *_ENCODING)
    except tarfile.HeaderError:
        return False
    return True


def _write(tar: _Counted, changes: Mapping[str, Placed], source: Read) -> None:
    for path in sorted(changes, key=lambda path: path.split("/")):
        _add(tar, path, changes[path], source)
    tar.write(bytes(2 * tarfile.BLOCKSIZE))


class _Blocks:
    """Hands on what is written in blocks of one size, so that gzip's output depends on the content
    alone.
    """

    def __init__(self, out: _Writer) -> None:
        self._out, self._waiting = out, bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self._waiting += data
        while len(self._waiting) >= _BLOCK:
            with memoryview(self._waiting) as view:
                self._out.write(view[:_BLOCK])
            del self._waiting[:_BLOCK]

    def end(self) -> None:
        self._out.write(bytes(self._waiting))


def _add(tar: _Counted, path: str, placed: Placed, source: Read) -> None:
    node = placed.node
    if node.kind != "file":
        tar.write(header(path, node))
        return
    assert placed.entry is not None
    padding = bytes(-node.size % tarfile.BLOCKSIZE)
    if node.size <= _BLOCK:  # in one piece, which is faster
        tar.write(b"".join((header(path, node), *source(placed.entry.path), padding)))
        return
    tar.write(header(path, node))
    for chunk in source(placed.entry.path):
        tar.write(chunk)
    tar.write(padding)


_TYPES = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}
_SHORT, _SMALL_ID, _SMALL = 100, 1 << 21, 1 << 33


def header(path: str, node: Node) -> bytes:
    """Return the header of an entry: ustar's one block where names and numbers fit into it, else
    pax's.

    Of many small files the headers would take longer than the contents if `tarfile` made them.
    """
    name = f"{path}/" if node.kind == "dir" else path
    plain = name.isascii() and node.target.isascii()
    small = max(node.uid, node.gid) < _SMALL_ID and node.size < _SMALL
    if not (plain and small and max(len(name), len(node.target)) < _SHORT):
        return _long_header(path, node)
    size = node.size if node.kind == "file" else 0
    block = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%bustar\x0000" % (
        name.encode().ljust(_SHORT, b"\0"),
        node.mode,
        node.uid,
        node.gid,
        size,
        MTIME,
        _TYPES[node.kind],
        node.target.encode().ljust(_SHORT, b"\0"),
    )
    return b"%b%06o\0%b" % (block[:148], sum(block), block[155:].ljust(357, b"\0"))


def _long_header(path: str, node: Node) -> bytes:
    info = tarfile.TarInfo(path)
    info.type, info.linkname = _TYPES[node.kind], node.target
    info.mode, info.uid, info.gid, info.mtime = node.mode, node.uid, node.gid, MTIME
    info.size = node.size if node.kind == "file" else 0
    return info.tobuf(tarfile.PAX_FORMAT, *_ENCODING)
