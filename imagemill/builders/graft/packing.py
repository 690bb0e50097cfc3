"""Packs a layer: the same bytes for the same files, wherever and whenever it is packed."""

import hashlib
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import BinaryIO, NamedTuple, Protocol

from isal import igzip_threaded

from imagemill.builders.graft.copying import Placed
from imagemill.context.tarball import MTIME

_BLOCK = 1 << 20
_ENCODING = "utf-8", "surrogateescape"

Open = Callable[[bytes], AbstractContextManager[Iterator[bytes]]]
"""Opens a file of the source by its path; gives its content in chunks."""


class Packed(NamedTuple):
    """A layer that was written."""

    digest: str
    """Of the blob, as it was written."""
    diff_id: str
    """Of the tar in it."""
    size: int


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


def pack(changes: Mapping[str, Placed], source: Open, out: BinaryIO) -> Packed:
    """Write the layer, gzipped, to `out`; paths are sorted, times are those of packed contexts."""
    blob = _Counted(out)
    with igzip_threaded.open(  # type: ignore[no-untyped-call]
        blob, "wb", compresslevel=1, threads=1, block_size=_BLOCK
    ) as compressed:
        blocks = _Blocks(compressed)
        tar = _Counted(blocks)
        for path in sorted(changes, key=lambda path: path.split("/")):
            _add(tar, path, changes[path], source)
        tar.write(bytes(2 * tarfile.BLOCKSIZE))
        blocks.end()
    return Packed(blob.digest, tar.digest, blob.size)


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


def _add(tar: _Counted, path: str, placed: Placed, source: Open) -> None:
    node = placed.node
    info = tarfile.TarInfo(path)
    info.mode, info.uid, info.gid, info.mtime = node.mode, node.uid, node.gid, MTIME
    if node.kind == "dir":
        info.type = tarfile.DIRTYPE
    elif node.kind == "link":
        info.type, info.linkname = tarfile.SYMTYPE, node.target
    else:
        info.size = node.size
    # pax headers only where a name is too long for ustar, or no ASCII
    tar.write(info.tobuf(tarfile.PAX_FORMAT, *_ENCODING))
    if node.kind != "file":
        return
    assert placed.entry is not None
    with source(placed.entry.path) as chunks:
        for chunk in chunks:
            tar.write(chunk)
    tar.write(bytes(-node.size % tarfile.BLOCKSIZE))
