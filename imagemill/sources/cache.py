"""Keeps fetched sources on their node, so that the steps and builds that want the same one fetch it
once.

    <folder>/lock               held for a moment by whoever finds, adds or takes away a folder
    <folder>/<sha256>/          an entry: whole, and never changed
    <folder>/<sha256>.<hex>/    one that is being made
    <folder>/removed.<hex>/     one that is being removed
    <folder>/*/entry, tree/     of each: its size and top folder, as JSON; what was fetched
    <folder>/*/used             the number of its last use: uses are counted in the file `lock`

The file `entry` is locked by those who make an entry, go on to use it (shared) or remove it
(exclusive). All locks are taken by whoever has `lock`, so that none is ever waited for. The kernel
ends the locks of a process that dies, however that happens; what it left unfinished has nobody's
lock then, and is removed by the next one who adds or leaves.

The locks are flock(2)'s, since libraries have none to share that is as good: fasteners 0.20 has
POSIX locks, which do not keep the threads of a process apart; filelock's ReadWriteLock is a
transaction in SQLite.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from imagemill.errors import OperatorError
from imagemill.files import folders
from imagemill.files.own import not_ours
from imagemill.files.tree import room
from imagemill.ports import Progress, Quiet

log = logging.getLogger(__name__)

Bring = Callable[[Path], Path]
"""Fetches a source into the folder that it is given, which it makes, and returns the top folder:
that or one in it.
"""

TICK = 0.1
"""Seconds after which one who waits for another's fetch looks again."""

_MOMENT = 0.005
"""Seconds after which `lock` is tried again."""

_LOCK, _ENTRY, _TREE, _USED = "lock", "entry", "tree", "used"
_NAME = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = re.compile(r"([0-9a-f]{64}|removed)\.[0-9a-f]{32}")
_MENDED_BY_REMOVING = {errno.ENOSPC, errno.EDQUOT}
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class SourceCache:
    """Fetched sources in a folder of this node, shared by all threads and processes of one user.

    What is kept takes `max_bytes` at most, with 0 nothing is kept; what is in use or being fetched
    comes on top where it has to. The folder is created when it is first needed, mode 0700.
    """

    folder: Path
    max_bytes: int

    @contextmanager
    def tree(self, key: str, bring: Bring, progress: Progress) -> Iterator[Path]:
        """Hold the top folder of the source that `key` names, to be read only, and there as long as
        the block lasts.

        `key` stands for one content for ever. Where it is not here, it is brought, and by one at a
        time: others wait, and take over at once if that fails or its process dies. If the disk is
        full, all that nobody uses is removed and the source brought once more.

        Errors are those of `bring`; besides, `OperatorError` if the disk is full still, and
        `PermissionDenied` if the folder is another user's.
        """
        name = _name(key)
        with room(self.folder):
            lock = self._locked(name, bring, progress)
        try:
            record = _Record.read(self.folder / name)
            assert record is not None, "an entry gets its name when it has one"
            yield self.folder / name / _TREE / record.path
        finally:
            lock.release()
            self._fit(self.max_bytes, Quiet())

    def _locked(self, name: str, bring: Bring, progress: Progress) -> "_Lock":
        """Return a shared lock on the entry, which is made first if it has to be."""
        try:
            return self._found_or_made(name, bring, progress)
        except (OSError, OperatorError) as error:
            if not (_is_full(error) and self._fit(0, progress)):
                raise
        progress.log(
            "The disk is full: fetched sources that nobody uses were removed, and this one is tried again"
        )
        return self._found_or_made(name, bring, progress)

    def _found_or_made(self, name: str, bring: Bring, progress: Progress) -> "_Lock":
        waited = False
        while (turn := self._turn(name, progress)) is None:
            if not waited:
                progress.log(
                    "Another build on this node is fetching the same source: waiting for it"
                )
            waited = True
            progress.check()
            time.sleep(TICK)
        path, lock = turn
        if path.name != name:
            self._make(path, lock, bring, progress)
        return lock

    def _turn(self, name: str, progress: Progress) -> "tuple[Path, _Lock] | None":
        """Return the entry, or a new folder to make it in, with a shared lock; None while somebody
        else makes it.
        """
        with self._alone(progress):
            path = self.folder / name
            if path.is_dir():
                self._note_use(path)
            elif any(_is_locked(making) for making in self.folder.glob(f"{name}.*")):
                return None
            else:
                path = self.folder / f"{name}.{uuid.uuid4().hex}"
                path.mkdir(mode=0o700)
                self._note_use(path)
            lock = _Lock.take(path / _ENTRY, fcntl.LOCK_SH)
            assert lock is not None, "what somebody removes has another name"
            return path, lock

    def _note_use(self, entry: Path) -> None:
        """Count a use; whoever calls has `lock`.

        Times of files would not do: they are as coarse as the kernel's clock, and some file systems
        set them when they write.
        """
        count = 1 + _number(self.folder / _LOCK)
        with (self.folder / _LOCK).open("r+") as counter:  # in place: it only ever gets longer
            counter.write(str(count))
        (entry / _USED).write_text(str(count))

    def _make(self, making: Path, lock: "_Lock", bring: Bring, progress: Progress) -> None:
        """Make an entry; it keeps its lock when it gets its name."""
        try:
            tree = making / _TREE
            path = bring(tree).relative_to(tree)
            _Record(folders.size(tree, progress), str(path)).write(making)
            with self._alone(progress):
                making.rename(making.with_suffix(""))
            self._fit(self.max_bytes, progress)
        except BaseException:
            lock.release()
            self._fit(self.max_bytes, Quiet())
            raise

    def _fit(self, most: int, progress: Progress) -> bool:
        """Remove what is left over, and what nobody uses until the rest takes `most` bytes; whether
        there was any.
        """
        with ExitStack() as locks:
            with self._alone(progress):
                surplus = self._set_aside(most, locks)
            for path in surplus:
                with _left_over(path):
                    folders.remove(path / _TREE, progress)
            if surplus:
                with self._alone(progress):
                    _remove_emptied(surplus)
        return bool(surplus)

    def _set_aside(self, most: int, locks: ExitStack) -> list[Path]:
        """Rename the surplus, so that nobody finds it; after a crash in the middle of removing it,
        it is left over.

        Of the entries, the least recently used go first. Those that are larger than `most` go
        before them, and drive no other out.
        """
        aside: list[Path] = []

        def take(name: str) -> bool:
            lock = _Lock.take(self.folder / name / _ENTRY, fcntl.LOCK_EX)
            if lock:
                locks.callback(lock.release)
                aside.append(
                    (self.folder / name).rename(self.folder / f"removed.{uuid.uuid4().hex}")
                )
            return lock is not None

        names = [path.name for path in self.folder.iterdir()]
        records = {
            name: _Record.read(self.folder / name) for name in names if _NAME.fullmatch(name)
        }
        fitting = {
            name: record.size for name, record in records.items() if record and record.size <= most
        }
        for name in names:
            if _UNFINISHED.fullmatch(name) or (name in records and name not in fitting):
                take(name)
        excess = sum(fitting.values()) - most
        for name in sorted(fitting, key=lambda name: _number(self.folder / name / _USED)):
            if excess > 0 and take(name):
                excess -= fitting[name]
        return aside

    @contextmanager
    def _alone(self, progress: Progress) -> Iterator[None]:
        """Hold `lock`: names and other locks do not change meanwhile, except that locks end."""
        with self._reached():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            while (lock := _Lock.take(self.folder / _LOCK, fcntl.LOCK_EX)) is None:
                progress.check()
                time.sleep(_MOMENT)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (NotADirectoryError, FileExistsError) as error:
            raise OperatorError(
                f"{self.folder}, where fetched sources are kept, is not a folder",
                "remove it, or set IMAGEMILL_STATE_DIR to another folder",
            ) from error
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise not_ours("fetched sources", self.folder, error) from error


class _Lock:
    """A lock on a file, which ends with the process at the latest.

    It belongs to the file as it is opened here, so that threads keep each other out as processes
    do. A forked child has it as well, but cannot let go of what its parent holds.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._process = os.getpid()

    @classmethod
    def take(cls, path: Path, kind: int) -> "_Lock | None":
        """Return a lock, `LOCK_SH` or `LOCK_EX`; None if somebody else's is in the way."""
        lock = cls(path)
        try:
            fcntl.flock(lock._file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            lock._file.close()
            return None
        return lock

    def release(self) -> None:
        if os.getpid() == self._process:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()


def _is_locked(path: Path) -> bool:
    lock = _Lock.take(path / _ENTRY, fcntl.LOCK_EX)
    if lock:
        lock.release()
    return lock is None


@dataclass(frozen=True)
class _Record:
    """What is known of an entry without looking at what is in it."""

    size: int
    """Bytes on the disk, measured when it was made."""
    path: str
    """Of the top folder, within what was fetched."""

    def write(self, entry: Path) -> None:
        (entry / _ENTRY).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, entry: Path) -> "_Record | None":
        """Return the record; None if there is none, since power was cut before it came to the disk."""
        text = (entry / _ENTRY).read_text() if (entry / _ENTRY).exists() else ""
        return cls(**json.loads(text)) if text.startswith("{") else None


def _name(key: str) -> str:
    """Return the name of an entry. One that was made before the machine started anew is never
    found, and so goes in time: what was written last may not have come to the disk, and to wait
    until each file is there can take minutes.
    """
    boot = _BOOT.read_text() if _BOOT.exists() else ""
    return hashlib.sha256(f"{boot}{key}".encode(errors="surrogateescape")).hexdigest()


def _is_full(error: OSError | OperatorError) -> bool:
    """Whether the disk is full: an error that `imagemill.files.tree.room` made of that has it as
    its cause.
    """
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in _MENDED_BY_REMOVING


def _number(path: Path) -> int:
    """Return the number in a file; 0 if it has none, or never came to the disk."""
    text = path.read_text() if path.exists() else ""
    return int(text) if text.isdecimal() else 0


@contextmanager
def _left_over(path: Path) -> Iterator[None]:
    """Leave what cannot be removed now for the next one to try: what a killed worker had started
    may still write.
    """
    try:
        yield
    except OSError as error:
        log.warning("%s is left over: %s", path, error)


def _remove_emptied(paths: list[Path]) -> None:
    for path in paths:
        with _left_over(path):
            (path / _ENTRY).unlink()
            (path / _USED).unlink(missing_ok=True)
            path.rmdir()
