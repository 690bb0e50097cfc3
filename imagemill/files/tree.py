"""Reads and writes on the worker's own disk: never outside the folder that is meant, and a full
disk is an `OperatorError` that names it.

Folders and archives that come from outside may hold symbolic links, and may change while they are
read. So paths are followed name by name from an open folder, and no name is ever followed through a
link (`O_NOFOLLOW`).
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from imagemill.errors import OperatorError
from imagemill.place import machine

MAX_DEPTH = 256
"""How deep folders may be nested: far beyond any real source, and well within what a process may
have open.
"""

_MAX_NAME, _MAX_PATH = 255, 4096
"""Linux's NAME_MAX and PATH_MAX, in bytes."""

T = TypeVar("T")

_CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def room(path: Path) -> Iterator[None]:
    """Tell that there is no room left at `path` for what is written in the block as an
    `OperatorError`.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OperatorError(
            f"There is no room left in {path}: {os.strerror(error.errno)}",
            f"free some space there, or give {machine()} a larger disk or quota, and build again",
        ) from error


def shown(path: bytes) -> str:
    r"""Return a path for people to read: bytes that are not UTF-8 are written as `\xNN`."""
    return path.decode(errors="backslashreplace")


def open_folder(name: bytes, within: int | None = None) -> int:
    """Open a folder by its name within an open one, or by its path. `OSError` if it is a link or
    not a folder.
    """
    return os.open(name, _FOLDER, dir_fd=within)


def open_file(name: bytes, within: int) -> int:
    """Open a file to read by its name within an open folder. `OSError` if it is a link; a FIFO does
    not block.
    """
    return os.open(name, _READ, dir_fd=within)


def open_folder_below(top: int, path: bytes) -> int:
    """Open the folder `path` below an open folder; the folder itself if `path` is empty or `.`.

    `OSError` if there is none: also if a name on the way is a link.
    """
    folder = os.dup(top)
    try:
        for part in path.split(b"/"):
            if part not in (b"", b"."):
                within, folder = folder, open_folder(part, folder)
                os.close(within)
    except OSError:
        os.close(folder)
        raise
    return folder


class OpenFolder(type(Path())):  # type: ignore[misc]
    """A folder that was opened when it was checked: whoever reads it by `open_top` reads that very
    folder, whatever its path has come to mean since.
    """

    __slots__ = ("descriptor",)
    descriptor: int

    @classmethod
    def of(cls, path: Path, descriptor: int) -> Self:
        """Return the folder that is open as `descriptor`, which is its own from now on."""
        folder = cls(path)
        folder.descriptor = descriptor
        return folder

    def __del__(self) -> None:
        descriptor = getattr(self, "descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


def open_top(folder: Path) -> int:
    """Open a folder to read what is in it, by its descriptor if it has one; else links on its path
    are followed. `OSError` if it is none.
    """
    descriptor = getattr(folder, "descriptor", None)
    if descriptor is not None:
        return os.dup(descriptor)
    return open_folder(os.path.realpath(os.fsencode(folder)))


def open_below(top: int, path: bytes) -> BinaryIO:
    """Open the regular file `path` below an open folder to read.

    `FileNotFoundError` if there is none: also if a name on the way is a link, or what is there is
    no regular file.
    """
    parent, _, name = path.rpartition(b"/")
    try:
        folder = open_folder_below(top, parent)
        try:
            descriptor = open_file(name, folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return os.fdopen(descriptor, "rb")


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, in as many calls as it takes."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


class UnsafePathError(ValueError):
    """A path that was not written, since it, or what lies there already, leads elsewhere; the text
    says why.
    """


class Tree:
    """Creates files, folders and links below one folder, by paths that nobody has checked before.

    Modes are 0755 and 0644 whatever the umask, and times are `mtime`, in seconds since 1970, if one
    is given. A path that leaves the folder, by `..` or through a link, is an `UnsafePathError`, as
    is a file where a folder is or the other way round. A file or a link that is there already is
    replaced.
    """

    def __init__(self, top: Path, mtime: int | None = None) -> None:
        self._times = None if mtime is None else (mtime, mtime)
        self._folders: dict[bytes, None] = {}
        """Those that were made, or in which something was made or removed."""
        self._top = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent, self._parent_fd = b"", os.dup(self._top)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                # Last of all, since each entry that is created or removed dates its folder anew.
                for path in self._folders if self._times else ():
                    folder = self._open(path.split(b"/"))
                    os.utime(folder, self._times)
                    os.close(folder)
        finally:
            os.close(self._parent_fd)
            os.close(self._top)

    def folder(self, path: bytes) -> None:
        """Create a folder, and those above it; one that is there already is fine."""
        os.close(self._open(_parts(path)))

    def file(
        self, path: bytes, executable: bool, content: Iterable[bytes], mtime_ns: int | None = None
    ) -> None:
        """Create a file and write its content; `mtime_ns` is a time of its own, in nanoseconds."""
        descriptor = self.begin(path)
        try:
            for chunk in content:
                write_all(descriptor, chunk)
        finally:
            self.end(descriptor, executable, mtime_ns)

    def begin(self, path: bytes) -> int:
        """Create a file and return its descriptor, to be written to and then given to `end`."""
        return self._create(path, lambda name: os.open(name, _NEW, 0o600, dir_fd=self._parent_fd))

    def end(self, descriptor: int, executable: bool, mtime_ns: int | None = None) -> None:
        """Give a file its mode and time, and close it."""
        try:
            os.fchmod(descriptor, 0o755 if executable else 0o644)
            if mtime_ns is not None:
                os.utime(descriptor, ns=(mtime_ns, mtime_ns))
            elif self._times:
                os.utime(descriptor, self._times)
        finally:
            os.close(descriptor)

    def link(self, path: bytes, target: bytes, mtime_ns: int | None = None) -> None:
        """Create a symbolic link; where its target leads is not looked at."""
        if not 0 < len(target) < _MAX_PATH or b"\0" in target:
            raise UnsafePathError(f"{shown(path)} is a link with a target that no file can have")

        def create(name: bytes) -> None:
            os.symlink(target, name, dir_fd=self._parent_fd)
            if mtime_ns is not None or self._times:
                times = {"times": self._times} if mtime_ns is None else {"ns": (mtime_ns, mtime_ns)}
                os.utime(name, **times, dir_fd=self._parent_fd, follow_symlinks=False)

        self._create(path, create)

    @contextmanager
    def read(self, path: bytes) -> Iterator[Iterator[bytes]]:
        """Yield the content, in chunks, of a file that was created before; `UnsafePathError` if
        there is none at `path`.
        """
        try:
            file = open_below(self._top, b"/".join(_parts(path)))
        except FileNotFoundError:
            raise UnsafePathError(f"{shown(path)} is linked to, but is no file in it") from None
        with file:
            yield iter(lambda: file.read(_CHUNK), b"")

    def remove(self, path: bytes, is_folder: bool) -> None:
        """Remove a file, a link, or a folder in which nothing is left."""
        name = self._enter(path)
        if not is_folder:
            return os.unlink(name, dir_fd=self._parent_fd)
        os.rmdir(name, dir_fd=self._parent_fd)
        self._folders.pop(b"/".join(_parts(path)), None)

    def _enter(self, path: bytes) -> bytes:
        """Open the folder that the last name of `path` is in, as the parent; the name."""
        *folders, name = _parts(path) or [b""]
        if not name:
            raise UnsafePathError("the top folder itself is no folder")
        parent = b"/".join(folders)
        if parent != self._parent:
            before, self._parent_fd = self._parent_fd, self._open(folders)
            self._parent = parent
            os.close(before)
        self._note(parent)
        return name

    def _note(self, folder: bytes) -> None:
        """Remember to date a folder at the end; whose the top is dates it."""
        if folder:
            self._folders[folder] = None

    def _create(self, path: bytes, create: Callable[[bytes], T]) -> T:
        """Let `create` make the last name of `path` in the folder that is open as the parent."""
        name = self._enter(path)
        try:
            return create(name)
        except FileExistsError:
            try:
                os.unlink(name, dir_fd=self._parent_fd)
            except IsADirectoryError:
                raise UnsafePathError(f"{shown(path)} is a folder already") from None
            return create(name)

    def _open(self, parts: list[bytes]) -> int:
        """Open a folder below the top, creating what is missing on the way."""
        folder = os.dup(self._top)
        for depth, name in enumerate(parts, start=1):
            within = folder
            try:
                folder = self._open_or_create(name, within, b"/".join(parts[:depth]))
            finally:
                os.close(within)
        return folder

    def _open_or_create(self, name: bytes, within: int, path: bytes) -> int:
        try:
            return open_folder(name, within)
        except FileNotFoundError:
            os.mkdir(name, 0o700, dir_fd=within)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise UnsafePathError(f"{shown(path)} is a file or a link, not a folder") from None
        self._note(path.rpartition(b"/")[0])
        self._note(path)
        folder = open_folder(name, within)
        os.fchmod(folder, 0o755)
        return folder


def _parts(path: bytes) -> list[bytes]:
    """Return the names in a relative path; none for the top folder itself."""
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if path.startswith(b"/"):
        raise UnsafePathError(f"{shown(path)} is an absolute path")
    if b".." in names:
        raise UnsafePathError(f"{shown(path)} leads out of the folder")
    if b"\0" in path or len(path) > _MAX_PATH or any(len(name) > _MAX_NAME for name in names):
        raise UnsafePathError(f"{shown(path[:_MAX_NAME])} is not a name that a file can have")
    if len(names) > MAX_DEPTH:
        raise UnsafePathError(
            f"{shown(path[:_MAX_NAME])} … is nested deeper than {MAX_DEPTH} folders"
        )
    return names
