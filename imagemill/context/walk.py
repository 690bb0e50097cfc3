"""Walks a source folder, in the order of the manifest, and finds what `.dockerignore` lets a build
see.
"""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from imagemill.context.dockerignore import DockerIgnore, Matches
from imagemill.errors import PermissionDenied, UserError
from imagemill.files.tree import MAX_DEPTH, open_folder, shown
from imagemill.place import machine
from imagemill.ports import Progress

_FILE_NAMES = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
GIT = b".git"
"""Of a checkout a folder, of a submodule or a worktree a file."""

_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE}
"""What opening an entry, of the type that it had when its folder was listed, says when it is no
longer that.
"""


class Found(NamedTuple):
    """An entry of the source, to be opened by its name within its folder, so through no link."""

    path: bytes
    """Relative to the source's top."""
    name: bytes
    within: int
    """Descriptor of the folder that the entry is in; open until the next entry is asked for."""
    is_file: bool
    is_folder: bool


Seen = Callable[[bytes, os.stat_result, "list[tuple[bytes, bool, bool]]"], None]
"""Gets the path of each folder that is listed, its status before that, and what it lists."""


class Walk:
    """One walk over a source: each folder right before its entries, names sorted by their bytes.

    What git keeps beside the files of a checkout is no part of it, unless `git` says so. `is_whole`
    says whether all folders that may matter could be listed.
    """

    def __init__(
        self,
        ignore: DockerIgnore,
        progress: Progress,
        *,
        git: bool = False,
        seen: Seen | None = None,
    ) -> None:
        self._ignore = ignore
        self._progress = progress
        self._hidden = None if git else GIT
        self._seen = seen
        self.is_whole = True

    def entries(self, top: int) -> Iterator[Found]:
        """Return what the open folder `top` holds and is not ignored, and the folders that lead to
        it.
        """
        return self._entries(top, b"", self._ignore.at_top, 1)

    def _entries(
        self, folder: int, prefix: bytes, inherited: Matches, depth: int
    ) -> Iterator[Found]:
        if depth > MAX_DEPTH:
            raise UserError(
                f"The source has folders nested deeper than {MAX_DEPTH}, below {shown(prefix[:200])} …",
                "list the topmost of them in .dockerignore if the build does not need it",
            )
        self._progress.check()
        status = os.fstat(folder)
        entries = listing(folder, prefix)
        if self._seen:
            self._seen(prefix.removesuffix(b"/"), status, entries)
        for name, is_file, is_folder in entries:
            if name == self._hidden:
                continue
            path = prefix + name
            ignored, matches = self._ignore.match(path, inherited)
            if ignored and not (is_folder and self._ignore.may_keep_below(path)):
                continue
            entry = Found(path, name, folder, is_file, is_folder)
            if not ignored:
                yield entry
            if is_folder:
                below = self._below(entry, ignored, matches, depth)
                yield from _led_to(entry, below) if ignored else below

    def _below(self, entry: Found, ignored: bool, matches: Matches, depth: int) -> Iterator[Found]:
        try:
            folder = open_folder(entry.name, entry.within)
        except OSError as error:
            if ignored and isinstance(error, PermissionError):  # BuildKit passes over it as well
                self.is_whole = False
                return
            reading_failed(entry.path, error)
        try:
            yield from self._entries(folder, entry.path + b"/", matches, depth + 1)
        finally:
            os.close(folder)


def _led_to(folder: Found, below: Iterator[Found]) -> Iterator[Found]:
    """Yield the folder and what is below it, if that is anything at all."""
    for entry in below:
        yield folder
        yield entry
        yield from below


def listing(folder: int, path: bytes) -> list[tuple[bytes, bool, bool]]:
    """Name, whether it is a file and whether a folder, of each entry of an open folder, in
    order.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(
                [
                    (
                        e.name.encode(*_FILE_NAMES),
                        e.is_file(follow_symlinks=False),
                        e.is_dir(follow_symlinks=False),
                    )
                    for e in entries
                ]
            )
    except OSError as error:
        reading_failed(path, error)


def changed(path: bytes) -> UserError:
    """Return the error that says that somebody writes to the source while it is read."""
    return UserError(
        f"The source changes while it is read: {shown(path)}",
        "build when nothing writes to it any more, or list what changes in .dockerignore",
    )


def leaves(path: str) -> UserError:
    """Return the error for a link that is to be read, and leads out of the source."""
    return UserError(
        f"{path!r} is a link that leaves the source", "put the file itself in its place"
    )


def reading_failed(path: bytes, error: OSError) -> NoReturn:
    """Raise what an error in reading `path` means to whoever can mend it; the error itself if it is
    none we know.
    """
    if error.errno in _GONE:
        raise changed(path) from error
    if isinstance(error, PermissionError):
        raise PermissionDenied(
            f"{machine().capitalize()} may not read {shown(path) or 'the top folder'} of the source",
            f"let the user with the id {os.geteuid()} read it, or list it in .dockerignore",
        ) from error
    raise error
