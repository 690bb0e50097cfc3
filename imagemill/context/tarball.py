"""The packed form of a build context: a `.tar.gz` that is the same for the same content, wherever
it is packed.

    Dockerfile                 the Dockerfile, wherever the source has it
    Dockerfile.dockerignore    a comment: nothing is left to ignore
    context/…                  what a build can see, and nothing else

Owners are 0:0, modes 0755 or 0644, times 1980-01-02 (zip cannot store earlier ones); long names and
sizes are in GNU's format, which keeps names as bytes, and which GNU tar, Go and Python read. The
gzip stream is cut into blocks of a fixed size, so that it does not depend on how the source was
read. ISA-L at level 1 gives the same bytes on every x86-64 processor (tried from SSE4.2 to AVX-512;
at level 3 it does not), and others on ARM: there the tar is the same, but not its compression.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Self

from isal import igzip_threaded, isal_zlib

from imagemill.errors import OperatorError
from imagemill.files.tree import Tree, UnsafePathError
from imagemill.ports import Progress

DOCKERFILE, CONTEXT = "Dockerfile", "context"
"""Where the Dockerfile and the build context are, once unpacked."""

MTIME = 315_619_200
"""1980-01-02 00:00 UTC, in seconds since 1970: the time of all that is packed."""

# Not empty: to some BuildKit frontends an empty file is as good as none, and they go on to read
# `.dockerignore`.
IGNORE_NOTHING = b"# What was to be ignored is not in the context.\n"

_BLOCK = 1 << 20
_ENCODING = "utf-8", "surrogateescape"
_MAX_LONG_NAME = 1 << 16


class Writer:
    """Packs a context into a stream, entry by entry."""

    done = "packed"

    def __init__(self, out: BinaryIO, top: str = f"{CONTEXT}/") -> None:
        self._top = top
        self._gzip = igzip_threaded.open(  # type: ignore[no-untyped-call]
            out, "wb", compresslevel=1, threads=1, block_size=_BLOCK
        )
        self._buffer = bytearray()
        self._padding = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._gzip:
            if error is None:
                self.write(bytes(self._padding + 2 * tarfile.BLOCKSIZE))
                self._gzip.write(self._buffer)

    def dockerfile(self, content: bytes) -> None:
        """Begin with the Dockerfile."""
        for name, data in ((DOCKERFILE, content), (f"{DOCKERFILE}.dockerignore", IGNORE_NOTHING)):
            self._add(name, tarfile.REGTYPE, 0o644, len(data), content=data)
        self._add(CONTEXT, tarfile.DIRTYPE, 0o755)

    def folder(self, path: bytes) -> None:
        self._add(self._below(path), tarfile.DIRTYPE, 0o755)

    def link(self, path: bytes, target: bytes) -> None:
        self._add(self._below(path), tarfile.SYMTYPE, 0o777, target=target.decode(*_ENCODING))

    def file(self, path: bytes, executable: bool, size: int, content: bytes) -> None:
        """Begin a file of `size` bytes, of which `content` are the first; `write` must bring the
        others.
        """
        self._add(
            self._below(path),
            tarfile.REGTYPE,
            0o755 if executable else 0o644,
            size,
            content=content,
        )

    def _below(self, path: bytes) -> str:
        return f"{self._top}{path.decode(*_ENCODING)}"

    def write(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _BLOCK:
            with memoryview(self._buffer) as view:
                self._gzip.write(view[:_BLOCK])
            del self._buffer[:_BLOCK]

    def _add(
        self,
        name: str,
        kind: bytes,
        mode: int,
        size: int = 0,
        target: str = "",
        content: bytes = b"",
    ) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.size, info.linkname, info.mtime = kind, mode, size, target, MTIME
        self.write(bytes(self._padding) + info.tobuf(tarfile.GNU_FORMAT, *_ENCODING) + content)
        self._padding = -size % tarfile.BLOCKSIZE


def dockerfile(stream: BinaryIO) -> bytes:
    """Return the Dockerfile of a packed context, of which no more is read.

    `OperatorError` if the stream is damaged.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|gz") as packed:
            first = packed.next()
            content = packed.extractfile(first) if first and first.name == DOCKERFILE else None
            if content is None:
                raise tarfile.ReadError("it begins with another file")
            return content.read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise _damaged(error) from None


def unpack(stream: BinaryIO, tree: Tree, progress: Progress) -> None:
    """Unpack what `Writer` has packed; `OperatorError` if it is damaged, or holds what a `Writer`
    never writes.
    """
    try:
        with igzip_threaded.open(stream, "rb", threads=1) as archive:  # type: ignore[no-untyped-call]
            for info in _members(archive):
                progress.check()
                _unpack_member(info, archive, tree)
            while archive.read(_BLOCK):
                pass  # to the end, where gzip has its checksum
    except (
        tarfile.TarError,
        isal_zlib.IsalError,
        gzip.BadGzipFile,
        EOFError,
        UnsafePathError,
    ) as error:  # type: ignore[misc]
        raise _damaged(error) from error


def _damaged(error: Exception) -> OperatorError:
    return OperatorError(
        f"The packed context is damaged: {error}",
        "delete it from the context store and build again",
    )


def _unpack_member(info: tarfile.TarInfo, archive: BinaryIO, tree: Tree) -> None:
    path = info.name.encode(*_ENCODING)
    if info.type == tarfile.DIRTYPE:
        tree.folder(path)
    elif info.type == tarfile.SYMTYPE:
        if not path.startswith(f"{CONTEXT}/".encode()):
            raise UnsafePathError(f"{info.name!r} is a link")
        tree.link(path, info.linkname.encode(*_ENCODING))
    elif info.type == tarfile.REGTYPE:
        tree.file(path, bool(info.mode & 0o100), _chunks(archive, info.size))
        _exactly(archive, -info.size % tarfile.BLOCKSIZE)
    else:
        raise tarfile.HeaderError(f"{info.name!r} is neither file, folder nor link")


def _members(archive: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield the headers, each read when what the one before announced has been read."""
    long: dict[bytes, str] = {}
    while any(block := _exactly(archive, tarfile.BLOCKSIZE)):
        info = tarfile.TarInfo.frombuf(block, *_ENCODING)
        if info.size < 0:
            raise tarfile.HeaderError(f"{info.name!r} has a negative size")
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            if info.size > _MAX_LONG_NAME:
                raise tarfile.HeaderError("a name is too long")
            padded = _exactly(archive, info.size + -info.size % tarfile.BLOCKSIZE)
            long[info.type] = padded[: info.size].rstrip(b"\0").decode(*_ENCODING)
            continue
        info.name = long.pop(tarfile.GNUTYPE_LONGNAME, info.name)
        info.linkname = long.pop(tarfile.GNUTYPE_LONGLINK, info.linkname)
        yield info


def _chunks(archive: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        chunk = _exactly(archive, min(size, _BLOCK))
        size -= len(chunk)
        yield chunk


def _exactly(archive: BinaryIO, size: int) -> bytes:
    data = archive.read(size)
    if len(data) < size:
        raise EOFError("it ends too early")
    return data
