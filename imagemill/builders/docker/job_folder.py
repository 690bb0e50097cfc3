"""The folder of one docker build, which holds credentials: it is locked by whoever builds, so that
what a killed worker has left can be told and removed.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
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


def remove_dead(scratch: Path, untag: Callable[[Sequence[str]], bool]) -> None:
    """Remove the folders of builds whose worker has died, and the tags that they may have left in
    the engine.

    `untag` says whether the engine has them no more. Until then a folder stays, since nobody else
    knows of its tags; its credentials go at once.
    """
    with closing(left_by_the_dead(scratch, _PREFIX)) as dead:
        for folder in dead:
            with suppress(FileNotFoundError):  # its build has ended meanwhile
                _remove(folder, untag)


def _remove(folder: Path, untag: Callable[[Sequence[str]], bool]) -> None:
    note = folder / _TAGS
    tags = note.read_text().split() if note.exists() else []
    for path in set(folder.iterdir()) - {note}:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if not tags or untag(tags):
        shutil.rmtree(folder)
