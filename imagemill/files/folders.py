"""Measures and removes whole folders whose content nobody has checked: however deep, and without
following a link.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagemill.errors import UserError
from imagemill.files.tree import MAX_DEPTH, open_folder
from imagemill.ports import Progress


def size(folder: Path, progress: Progress) -> int:
    """Bytes that a folder takes on the disk with all that is in it; a file with several names
    counts for each.

    `UserError` if folders are nested deeper than any build could read.
    """
    with _opened(os.fsencode(folder)) as top:
        return _size(top, 1, progress)


def remove(folder: Path, progress: Progress) -> None:
    """Remove a folder with all that is in it; no error if it is not there.

    Until Python 3.13, `shutil.rmtree` calls itself for each folder in another and fails at a depth
    of about 1000, which git lets a repository have. Here each folder is moved to the top before it
    is emptied.
    """
    if not folder.exists():
        return
    with _opened(os.fsencode(folder)) as top:
        waiting = _emptied(top, top, progress)
        while waiting:
            name = waiting.pop()
            with _opened(name, top) as below:
                waiting += _emptied(below, top, progress)
            os.rmdir(name, dir_fd=top)
    folder.rmdir()


@contextmanager
def _opened(name: bytes, within: int | None = None) -> Iterator[int]:
    folder = open_folder(name, within)
    try:
        yield folder
    finally:
        os.close(folder)


def _listing(folder: int, progress: Progress) -> Iterator["os.DirEntry[str]"]:
    """Yield what an open folder holds at this moment."""
    with os.scandir(folder) as entries:
        listing = list(entries)
    for entry in listing:
        progress.check()
        yield entry


def _size(folder: int, depth: int, progress: Progress) -> int:
    if depth > MAX_DEPTH:
        raise UserError(
            f"The source has folders nested deeper than {MAX_DEPTH}",
            "leave them out of it: no build could read them",
        )
    total = _taken(os.fstat(folder))
    for entry in _listing(folder, progress):
        if entry.is_dir(follow_symlinks=False):
            with _opened(os.fsencode(entry.name), folder) as below:
                total += _size(below, depth + 1, progress)
        else:
            total += _taken(entry.stat(follow_symlinks=False))
    return total


def _taken(status: os.stat_result) -> int:
    """Return the bytes that a file takes: some file systems (ZFS) count its blocks seconds later."""
    return max(status.st_size, status.st_blocks * 512)


def _emptied(folder: int, top: int, progress: Progress) -> list[bytes]:
    """Remove the files of an open folder and move its folders to the top; their names there."""
    moved = []
    for entry in _listing(folder, progress):
        if entry.is_dir(follow_symlinks=False):
            moved.append(uuid.uuid4().hex.encode())
            os.rename(entry.name, moved[-1], src_dir_fd=folder, dst_dir_fd=top)
        else:
            os.unlink(entry.name, dir_fd=folder)
    return moved
