"""Keeps packed contexts in a folder: on one machine, or on a volume that the workers share.

An object is written under a temporary name in the same folder and then renamed, so whatever has its
final name is whole. What a crash leaves behind is removed when it is a day old: no build lasts that
long.
"""

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from imagemill.errors import OperatorError, PermissionDenied, UserError
from imagemill.files.tree import room
from imagemill.objects.names import checked
from imagemill.place import machine

_UNFINISHED = ".unfinished-"
_STALE_AFTER = 24 * 60 * 60
"""Seconds after which nobody writes to an unfinished object any more."""


class FileStore:
    """A context store in a folder, which is created when it is first written to."""

    def __init__(self, uri: str, region: str | None = None) -> None:
        parts = urlsplit(uri)
        path = unquote(parts.path)
        if (
            parts.scheme != "file"
            or parts.netloc not in ("", "localhost")
            or not path.startswith("/")
        ):
            raise UserError(
                f"{uri!r} is not the URI of a folder", "write file:///PATH, with an absolute path"
            )
        self._folder = Path(path)

    def uri(self, name: str) -> str:
        """Where the object is, or would be: `file:///…`."""
        return self._path(name).as_uri()

    def exists(self, name: str) -> bool:
        """Whether the object is there, whole."""
        with self._reached("read"):
            return self._path(name).is_file()

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Open a stream to write the object to; it is there once the block has ended, and not if
        the block raises.

        `OperatorError` if the disk is full.
        """
        final = self._path(name)
        with room(self._folder):
            file = self._unfinished()
            try:
                with file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                Path(file.name).replace(final)
                self._sync()
            finally:
                Path(file.name).unlink(missing_ok=True)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a stream to read the object from; `FileNotFoundError` if it is not there."""
        with self._reached("read"):
            file = self._path(name).open("rb")
        with file:
            yield file

    def delete(self, name: str) -> None:
        """Remove the object; no error if it is not there."""
        with self._reached("write"):
            self._path(name).unlink(missing_ok=True)

    def signed(self, name: str, seconds: float) -> None:
        """See `ContextStore.signed`: no URL leads to a folder."""

    def _path(self, name: str) -> Path:
        return self._folder / checked(name)

    def _unfinished(self) -> BinaryIO:
        """Return a new file, mode 0600, that does not count as an object."""
        with self._reached("write"):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            descriptor, path = tempfile.mkstemp(dir=self._folder, prefix=_UNFINISHED)
        os.close(descriptor)
        return Path(path).open("wb")

    def _sweep(self) -> None:
        """Remove what crashed workers have left behind."""
        for path in self._folder.glob(f"{_UNFINISHED}*"):
            with suppress(FileNotFoundError):  # another worker sweeps as well
                if path.stat().st_mtime < time.time() - _STALE_AFTER:
                    path.unlink()

    def _sync(self) -> None:
        """Have the new name survive a power failure."""
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _reached(self, action: str) -> Iterator[None]:
        """Have a refusal in the block name the action, `read` or `write`, and the folder."""
        try:
            yield
        except (NotADirectoryError, FileExistsError) as error:
            raise OperatorError(
                f"The context store {self._folder} is not a folder",
                "give builder.build-context-store another path",
            ) from error
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise PermissionDenied(
                f"{machine().capitalize()} may not use the context store {self._folder}: {os.strerror(error.errno)}",
                f"let the user with the id {os.geteuid()} read and write it",
                action,
                str(self._folder),
            ) from error
