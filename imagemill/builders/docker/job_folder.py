"""The folder of one docker build, which holds credentials: it is locked by whoever builds, so that
what a killed worker has left can be told and removed.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imagemill.files.scratch import left_by_the_dead, locked_folder

_PREFIX = "docker-"
_TAGS = "tags"


@contextmanager
def job_folder(scratch: Path) -> Iterator[Path]:
    """Make a folder that only this user can read, removed at the end of the block."""
    with locked_folder(scratch, _PREFIX) as folder:
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def note_tags(folder: Path, tags: tuple[str, ...]) -> None:
    """Note the tags that the build is about to make in the engine, for whoever finds the folder."""
    (folder / _TAGS).write_text("\n".join(tags))


def any_left(scratch: Path) -> bool:
    """Whether there are folders of builds, of living or of dead workers."""
    return any(scratch.glob(f"{_PREFIX}*"))


def remove_dead(scratch: Path) -> tuple[str, ...]:
    """Remove the folders of builds whose worker has died; returns the tags that they may have left
    in the engine.
    """
    tags: list[str] = []
    for folder in left_by_the_dead(scratch, _PREFIX):
        with suppress(FileNotFoundError):
            tags += (folder / _TAGS).read_text().split()
        shutil.rmtree(folder)
    return tuple(tags)
