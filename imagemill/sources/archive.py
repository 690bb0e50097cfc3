"""Unpacks archives that nobody vouches for: `.tar`, also with gzip, bzip2, xz and Zstandard, and
`.zip`, told apart by their first bytes.

Nothing is written outside the folder, whatever an archive says, and what it may take of disk, files
and time is bounded by what really comes out of it, not by what its headers claim. Executable bits
and symbolic links are kept.

Zstandard is read by the module that Python has from 3.14 on, and before by its backport, which is
the same code.
"""

import bz2
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from isal import igzip, isal_zlib

from imagemill.errors import UserError
from imagemill.files import zstd
from imagemill.files.tree import Tree, UnsafePathError, room
from imagemill.ports import Progress
from imagemill.sources.zip_directory import oversteps

_CHUNK = 1 << 20
_MAX_TARGET = 4096
_ENCODING = "utf-8", "surrogateescape"
_GZIP, _ZIP, _EMPTY_ZIP = b"\x1f\x8b", b"PK\x03\x04", b"PK\x05\x06"

_BZIP2, _XZ = b"BZh", b"\xfd7zXZ\x00"

_NOT_READ = {
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"\x04\x22M\x18": "LZ4",
    b"LZIP": "lzip",
    b"\x5d\x00\x00": "LZMA",
    b"\x1f\x9d": "compress (.Z)",
    b"\x89LZO": "lzop",
}
"""First bytes of what others pack with → what that is."""

_XZ_MEMORY = 256 << 20
"""Bytes of memory that an archive may make us take: `xz -9` asks for 65 MiB."""

_FORMATS = ".tar, .tar.gz, .tar.bz2, .tar.xz, .tar.zst or .zip"

_UNIX = 3
_DOS = (0, 10, 11)
"""MS-DOS and Windows, of the systems that made a member (APPNOTE.TXT, 4.4.2)."""

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075


@dataclass(frozen=True)
class Limits:
    """What may come out of one archive."""

    size: int = 32 << 30
    """Bytes in all."""
    members: int = 1_000_000
    """Files, folders and links."""
    ratio: int = 200
    """How many times the archive's own size: bombs reach 1,000 times, real sources some ten."""
    dense: int = 256 << 20
    """Bytes up to which the ratio does not matter."""


DEFAULT_LIMITS = Limits()


def unpack(
    archive: Path,
    folder: Path,
    progress: Progress,
    limits: Limits = DEFAULT_LIMITS,
    called: str = "",
) -> None:
    """Unpack `archive` into the existing folder `folder`; errors name it as it is `called`, or else
    by its path.

    `UserError` if it is no archive, is damaged, oversteps the limits, or holds what could lead
    elsewhere: absolute paths, `..`, devices, FIFOs, members below a link. A link that leads out
    is a link here as elsewhere: nothing follows it.
    `OperatorError` if the disk is full.
    """
    with archive.open("rb") as file, room(folder), Tree(folder) as tree, _judged(called or archive):
        start = file.read(2 * tarfile.BLOCKSIZE)
        file.seek(0)
        _refuse_others(start, called or archive)
        budget = _Budget(archive.stat().st_size, limits, progress)
        if start.startswith((_ZIP, _EMPTY_ZIP)):
            _unpack_zip(file, tree, budget)
        elif start.startswith(_GZIP):
            with igzip.open(file, "rb") as uncompressed:  # type: ignore[no-untyped-call]
                _unpack_tar(uncompressed, tree, budget)
        elif start.startswith(_BZIP2):
            _unpack_tar(_decompressed(file, bz2.BZ2Decompressor), tree, budget)
        elif start.startswith(_XZ):
            _unpack_tar(_decompressed(file, _xz_decompressor), tree, budget)
        elif zstd.PACKED.match(start):
            with zstd.unpacked(file) as uncompressed:
                _unpack_tar(uncompressed, tree, budget)
        else:
            _unpack_tar(file, tree, budget)


def _refuse_others(start: bytes, archive: object) -> None:
    """Raise the error for a format that is not read, where that shows."""
    for magic, name in _NOT_READ.items():
        if start.startswith(magic):
            raise UserError(
                f"{archive} is packed by {name}, which is not read: those that are, are {_FORMATS}",
                "pack it anew, as tar -C FOLDER -czf ARCHIVE . does",
            )


@contextmanager
def _judged(archive: object) -> Iterator[None]:
    """Tell what is wrong with the archive to whoever has made it."""
    try:
        yield
    except _LimitError as error:
        raise UserError(
            f"The archive {archive} {error}", "leave out what the build does not need"
        ) from None
    except UnsafePathError as error:
        raise UserError(
            f"The archive {archive} is not safe to unpack: {error}",
            "make it from within the folder, as tar -C FOLDER -czf ARCHIVE . does",
        ) from None
    except _DAMAGED as error:  # type: ignore[misc]
        raise UserError(
            f"The archive {archive} is damaged, or is no {_FORMATS}: {error}",
            "make it anew",
        ) from error


_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    igzip.BadGzipFile,
    isal_zlib.IsalError,
    zlib.error,
    zstd.DamagedError,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # zipfile, of a compression that it does not know
)


class _Decompressor(Protocol):
    """Of `bz2` and `lzma`."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _xz_decompressor() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


class _Decompressing(io.RawIOBase):
    """What comes out of a compressed file, of one stream after the other; no more at a time than is
    asked for.
    """

    def __init__(self, file: IO[bytes], make: Callable[[], _Decompressor]) -> None:
        self._file, self._make, self._now = file, make, make()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._now.eof:
                # Zeros may be behind a stream (https://tukaani.org/xz/xz-file-format.txt, 2.2).
                rest = self._now.unused_data.lstrip(b"\0")
                while not rest and (read := self._file.read(_CHUNK)):
                    rest = read.lstrip(b"\0")
                if not rest:
                    return 0
                self._now = self._make()
                data = rest
            else:
                data = self._file.read(_CHUNK) if self._now.needs_input else b""
                if self._now.needs_input and not data:
                    raise EOFError("it ends too early")
            try:
                made = self._now.decompress(data, len(buffer))
            except OSError as error:  # bz2's name for what is damaged
                raise tarfile.ReadError(str(error)) from error
            if made:
                buffer[: len(made)] = made
                return len(made)


def _decompressed(file: IO[bytes], make: Callable[[], _Decompressor]) -> io.BufferedReader:
    return io.BufferedReader(_Decompressing(file, make), _CHUNK)


class _Readable(Protocol):
    """A stream that is read forward only."""

    def read(self, size: int, /) -> bytes: ...


class _LimitError(Exception):
    """The archive oversteps a limit; the text says which."""


class _Budget:
    """What may still come out of an archive."""

    def __init__(self, packed: int, limits: Limits, progress: Progress) -> None:
        self._limits = limits
        self._progress = progress
        self._members = 0
        self._most = min(limits.size, max(limits.dense, limits.ratio * packed))

    def member(self) -> None:
        """Take one more member."""
        self._progress.check()
        self._members += 1
        if self._members > self._limits.members:
            raise _LimitError(f"has more than {self._limits.members:,} members")

    def check_directory(self, file: IO[bytes]) -> None:
        """Raise if a zip file lists too many members."""
        try:
            too_many = oversteps(file, self._limits.members)
        except (ValueError, struct.error) as error:
            raise zipfile.BadZipFile(str(error)) from error
        if too_many:
            raise _LimitError(f"has more than {self._limits.members:,} members")

    def counter(self) -> Callable[[int], None]:
        """Return a function that takes a number of bytes, and counts on its own."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            self._progress.check()
            taken += size
            if taken > self._limits.size:
                raise _LimitError(f"unpacks to more than {self._limits.size:,} bytes")
            if taken > self._most:
                raise _LimitError(f"unpacks to more than {self._limits.ratio} times its own size")

        return take


def _unpack_tar(file: _Readable, tree: Tree, budget: _Budget) -> None:
    # Two counts: a hard link costs nothing in the stream, and a header nothing on the disk.
    stream = _Forward(file, budget.counter())
    written = budget.counter()
    for info in _tar_members(stream):
        budget.member()
        path = info.name.encode(*_ENCODING)
        if info.isdir():
            tree.folder(path)
        elif info.issym():
            tree.link(path, info.linkname.encode(*_ENCODING))
        elif info.islnk():
            with tree.read(info.linkname.encode(*_ENCODING)) as existing:
                tree.file(path, bool(info.mode & stat.S_IXUSR), _counted(existing, written))
        elif info.isreg() and not info.issparse():
            tree.file(
                path, bool(info.mode & stat.S_IXUSR), _counted(stream.chunks(info.size), written)
            )
        else:
            raise UnsafePathError(
                f"{info.name!r} is {_TYPES.get(info.type, 'of a type that is not supported')}"
            )


_TYPES = {
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


def _tar_members(stream: "_Forward") -> Iterator[tarfile.TarInfo]:
    """Yield the headers, each read when what belongs to the one before has been read; the end is
    checked.
    """
    try:
        archive = tarfile.TarFile(fileobj=stream, encoding=_ENCODING[0], errors=_ENCODING[1])  # type: ignore[arg-type]
        while info := archive.next():
            archive.members.clear()  # type: ignore[attr-defined]  # they would all be kept in memory
            yield info
    except (ValueError, OverflowError) as error:  # tarfile, of numbers in headers that are none
        raise tarfile.HeaderError(str(error)) from error
    # tarfile takes a header that it cannot read for the end: only zeros are.
    if stream.last != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it ends without an end mark")
    stream.drain()


class _Forward:
    """A stream as `tarfile` wants it: counted, never backwards, and no more than a chunk at a
    time.
    """

    def __init__(self, file: _Readable, count: Callable[[int], None]) -> None:
        self._file = file
        self._count = count
        self._position = 0
        self.last = b""
        """What was read last."""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise tarfile.ReadError("a header is too large")
        self.last = self._file.read(size)
        self._position += len(self.last)
        self._count(len(self.last))
        return self.last

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError("its members overlap")
        for _ in self.chunks(position - self._position):
            pass

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes."""
        end = self._position + size
        while self._position < end:
            if not (chunk := self.read(min(end - self._position, _CHUNK))):
                raise EOFError("it ends too early")
            yield chunk

    def drain(self) -> None:
        """Read to the end, where gzip has its checksum."""
        while self.read(_CHUNK):
            pass


def _unpack_zip(file: IO[bytes], tree: Tree, budget: _Budget) -> None:
    written = budget.counter()
    budget.check_directory(file)
    with _opened_zip(file) as archive:
        for info in archive.infolist():
            budget.member()
            _unpack_zip_member(archive, info, tree, written)


def _unpack_zip_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, tree: Tree, written: Callable[[int], None]
) -> None:
    path = _zip_name(info)
    mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
    if info.flag_bits & 1:
        raise UserError(
            f"{info.filename!r} in the archive is encrypted", "make the archive without a password"
        )
    if path.endswith(b"/"):
        tree.folder(path)
        return
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFLNK):
        raise UnsafePathError(f"{info.filename!r} is neither file, folder nor link")
    with _opened_member(archive, info) as content:
        if stat.S_ISLNK(mode):
            tree.link(path, content.read(_MAX_TARGET))
        else:
            tree.file(
                path,
                bool(mode & stat.S_IXUSR),
                _counted(iter(lambda: content.read(_CHUNK), b""), written),
            )


def _zip_name(info: zipfile.ZipInfo) -> bytes:
    """Return the name of a member, as whoever packed it wrote it.

    Without the flag for UTF-8 it is what the field for a name in Unicode says, else the bytes that
    stand there, if they are UTF-8 (Info-ZIP and macOS leave the flag out) or of a system whose
    names are bytes; what is left is of code page 437 (APPNOTE.TXT, 4.6.9 and D.1), which `zipfile`
    has decoded. Old programs of Windows wrote backslashes between folders.
    """
    name = info.filename
    if not info.flag_bits & _UTF8_FLAG:
        name = _unicode_name(info) or _by_its_bytes(name, info.create_system not in _DOS)
    if "\\" in name and info.create_system in _DOS:
        name = name.replace("\\", "/")
    return name.encode(*_ENCODING)


def _by_its_bytes(name: str, are_bytes: bool) -> str:
    """Return a name that was taken for one of code page 437, as its bytes say."""
    with suppress(UnicodeError):
        return name.encode("cp437").decode(_ENCODING[0], _ENCODING[1] if are_bytes else "strict")
    return name


def _unicode_name(info: zipfile.ZipInfo) -> str | None:
    """Return the name in the field 0x7075, if that is of this name still."""
    at, extra = 0, info.extra
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        field, at = extra[at + 4 : at + 4 + length], at + 4 + length
        with suppress(UnicodeError):
            if kind == _UNICODE_PATH and field[:5] == struct.pack(
                "<BL", 1, zlib.crc32(info.orig_filename.encode("cp437"))
            ):
                return field[5:].decode()
    return None


@contextmanager
def _opened_zip(file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    with _zip_faults():
        archive = zipfile.ZipFile(file)
    with archive:
        yield archive


def _opened_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if info.header_offset < 0:
        raise zipfile.BadZipFile("a member begins before the archive does")
    with _zip_faults():
        return archive.open(info)


@contextmanager
def _zip_faults() -> Iterator[None]:
    """Names that are not in the encoding that they claim, and fields that are cut off, are damage."""
    try:
        yield
    except (ValueError, struct.error) as error:
        raise zipfile.BadZipFile(str(error)) from error


def _counted(chunks: Iterable[bytes], count: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        count(len(chunk))
        yield chunk
