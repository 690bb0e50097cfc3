"""Folders of what is needed for a moment: each is locked by the process that needs it, so that what
a killed one has left can be told and removed.
"""

import fcntl
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imagemill.files import folders
from imagemill.ports import Quiet

_PREFIX = "scratch-"


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Yield the path of a folder that whoever needs it makes; it is removed at the end of the block,
    and those of killed processes before it.
    """
    remove_dead(parent)
    with locked_folder(parent, _PREFIX) as folder:
        try:
            yield folder / "files"
        finally:
            folders.remove(folder, Quiet())


@contextmanager
def locked_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder whose name begins with `prefix`, which only this user can read, locked
    until the block ends. It is to be removed within the block.

    It has another name until it is locked, so nobody who looks for those of dead processes finds it
    before.
    """
    unlocked = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=parent))
    with locked(unlocked):
        yield unlocked.rename(parent / unlocked.name.removeprefix("."))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock on a folder, which ends with the process; `BlockingIOError` if it is held."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def remove_dead(parent: Path) -> None:
    """Remove the folders of `scratch` whose process was killed."""
    for folder in left_by_the_dead(parent, _PREFIX):
        folders.remove(folder, Quiet())


def left_by_the_dead(parent: Path, prefix: str) -> Generator[Path, None, None]:
    """Yield the folders of `locked_folder` whose process was killed, each locked while it is looked
    at.
    """
    for folder in parent.glob(f"{prefix}*"):
        with suppress(FileNotFoundError, BlockingIOError), locked(folder):
            yield folder
