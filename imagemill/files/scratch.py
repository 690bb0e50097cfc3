"""Folders of what is needed for a moment: each is locked by the process that needs it, so that what
a killed one has left can be told and removed.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imagemill.files import folders
from imagemill.ports import Quiet

_PREFIX = "scratch-"

_YOUNG_SECONDS = 60.0
"""What is younger may have been made by a process that has not locked it yet."""


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Yield the path of a folder that whoever needs it makes; it is removed at the end of the block,
    and those of killed processes before it.
    """
    _remove_dead(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with locked(folder):
            yield folder / "files"
    finally:
        folders.remove(folder, Quiet())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock on a folder, which ends with the process; `BlockingIOError` if it is held."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_dead(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError, BlockingIOError), locked(folder):
            if time.time() - folder.stat().st_mtime > _YOUNG_SECONDS:
                folders.remove(folder, Quiet())
