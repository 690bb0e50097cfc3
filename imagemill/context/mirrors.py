"""Contexts as folders on this machine that are kept from build to build: one for a source, which is
brought up to date in place.

    <folder>/<source>.lock             held while a folder of the source is chosen and updated
    <folder>/<source>.<hex>/           a mirror
    <folder>/*/source/                 laid out as a packed context is once unpacked
    <folder>/*/state                   what is in it; missing while it is updated
    <folder>/*/claims/<build>          one for each build that reads it: nobody changes it then

BuildKit keeps what it has read of a folder by the folder's path, and takes a file of the same size
and time for unchanged. So what has not changed is not written; what has changed gets a time that no
file at that path has had: the time of all packed files, and a number of nanoseconds that is counted
up. Layers have whole seconds, so images do not show it. A mirror that somebody died over is removed
and its path never comes again. See docs/adr/0015-one-context-folder-for-a-source.md.
"""

import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from imagemill import context
from imagemill.context import Choice, Manifest
from imagemill.context.index import Memory
from imagemill.context.update import MOST_TIMES, FolderState, keeps_times, update
from imagemill.errors import OperatorError
from imagemill.files import folders
from imagemill.files.own import not_ours
from imagemill.files.tree import room
from imagemill.ports import Progress, Quiet

TICK = 0.05
"""Seconds after which one who waits for another's update looks again."""

_SOURCE, _STATE, _CLAIMS = "source", "state", "claims"
_NAME = re.compile(r"([0-9a-f]{64}\.[0-9a-f]{32})/([0-9a-f]{64})")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class FolderClaim:
    """Who wants a mirror of what."""

    source: str
    """Names where the source comes from: what is the same from one build to the next."""
    build: str
    """Id of the build."""
    home: Path | None = None
    """A folder without which the build has ended, whoever may have died over it."""


@dataclass(frozen=True)
class MirroredTree:
    """A source as it is now."""

    root: Path
    dockerfile: Choice
    memory: Memory | None = None


@dataclass(frozen=True)
class Mirrors:
    """All mirrors of one user on this node, in `folder`, which is made when it is first needed.

    Those that nobody reads take `max_bytes` at most, and less where the disk is full.
    """

    folder: Path
    max_bytes: int = 20 << 30

    def claim(
        self, claim: FolderClaim, tree: MirroredTree, accept: context.Accept, progress: Progress
    ) -> str:
        """Have a mirror of the source as it is now, and keep it so until `release`.

        Returns the claim's name. Nothing is claimed if `accept` raises over the manifest.
        """
        key, mark = _digest(f"{_boot()}\n{claim.source}"), _digest(claim.build)
        with room(self.folder), self._locked(key, progress.check):
            mirror = self._current(key, mark, tree, accept, progress)
            (mirror / _CLAIMS / mark).write_text(str(claim.home or ""))
            os.utime(mirror)
        return f"{mirror.name}/{mark}"

    def is_claimed(self, name: str) -> bool:
        """Whether the claim stands, so that the mirror is there, whole and unchanged."""
        path = self._claim(name)
        return path is not None and path.is_file()

    def source(self, name: str) -> Path:
        """Return the folder with the Dockerfile and the context in it."""
        path = self._claim(name)
        if path is None:
            raise ValueError(f"{name!r} is not the name of a mirror")
        return path.parents[1] / _SOURCE

    def release(self, name: str) -> None:
        """Give up a claim; no error if it is not there."""
        if path := self._claim(name):
            path.unlink(missing_ok=True)

    def fit(self, max_bytes: int | None = None, claimed_before: float | None = None) -> None:
        """Remove mirrors that nobody reads, those that were used least recently first, until the
        rest holds `max_bytes` at most (default: the limit); besides, claims from before a time, in
        seconds since 1970.
        """
        left = self.max_bytes if max_bytes is None else max_bytes
        for mirror in sorted(self.folder.glob("*.*/"), key=_used, reverse=True):
            with self._locked(mirror.name.partition(".")[0], None) as ours:
                if claimed_before is not None:
                    _drop_claims(mirror, claimed_before)
                size = _size(mirror)
                left -= size or 0
                if ours and (size is None or left < 0) and not self._claims(mirror):
                    self._remove(mirror)

    def _current(
        self, key: str, mark: str, tree: MirroredTree, accept: context.Accept, progress: Progress
    ) -> Path:
        """Return a mirror that holds what the tree holds, and which only those read who want just
        that.
        """
        known = {path: state for path in self.folder.glob(f"{key}.*/") if (state := _state(path))}
        if not known:
            return self._added(key, tree, accept, progress)
        manifest = context.manifest(tree.root, tree.dockerfile, progress, tree.memory)
        accept(manifest)
        for mirror, state in known.items():
            if state.manifest == manifest.sha256:
                return mirror
        for mirror, state in known.items():
            if state.count < MOST_TIMES // 2 and not self._claims(mirror) - {mark}:
                self._update(mirror, state, tree.root, manifest, progress)
                return mirror
        return self._added(key, tree, accept, progress)

    def _added(
        self, key: str, tree: MirroredTree, accept: context.Accept, progress: Progress
    ) -> Path:
        """Return a new mirror; where there is no room for it, all that nobody reads goes."""
        try:
            mirror = self._made(key, tree, accept, progress)
        except OperatorError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            self.fit(0)
            mirror = self._made(key, tree, accept, progress)
        self.fit()
        return mirror

    def _made(
        self, key: str, tree: MirroredTree, accept: context.Accept, progress: Progress
    ) -> Path:
        """Return a new mirror, copied in one pass."""
        mirror = self.folder / f"{key}.{uuid.uuid4().hex}"
        try:
            (mirror / _CLAIMS).mkdir(parents=True)
            manifest = context.copy(tree.root, tree.dockerfile, mirror / _SOURCE, progress)
            accept(manifest)
            count = 0 if keeps_times(mirror / _SOURCE) else MOST_TIMES
            _write(mirror, FolderState.of(manifest, count))
        except BaseException:
            folders.remove(mirror, Quiet())
            raise
        return mirror

    def _update(
        self, mirror: Path, state: FolderState, root: Path, manifest: Manifest, progress: Progress
    ) -> None:
        try:
            (mirror / _STATE).unlink()
            _write(mirror, update(mirror / _SOURCE, state, root, manifest, progress))
        except BaseException:
            self._remove(mirror)
            raise

    def _claims(self, mirror: Path) -> set[str]:
        """Those who read a mirror; the claims of builds whose home has gone are removed."""
        found = set()
        for path in (mirror / _CLAIMS).glob("*"):
            with suppress(FileNotFoundError):
                home = path.read_text()
                if home and not Path(home).is_dir():
                    path.unlink()
                else:
                    found.add(path.name)
        return found

    def _remove(self, mirror: Path) -> None:
        """Remove a mirror; what cannot be removed now has no state any more, and is tried again."""
        (mirror / _STATE).unlink(missing_ok=True)
        with suppress(OSError):
            folders.remove(mirror, Quiet())

    def _claim(self, name: str) -> Path | None:
        match = _NAME.fullmatch(name)
        return self.folder / match[1] / _CLAIMS / match[2] if match else None

    @contextmanager
    def _locked(self, key: str, wait: Callable[[], None] | None) -> Iterator[bool]:
        """Hold the lock of a source, which ends with the process at the latest; whether we do.

        While somebody else holds it `wait` is called, over and over; without one we go on at once.
        """
        with self._lock_file(key) as lock:
            while not (ours := _lock(lock)) and wait:
                wait()
                time.sleep(TICK)
            yield ours

    def _lock_file(self, key: str) -> BinaryIO:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return (self.folder / f"{key}.lock").open("ab")
        except PermissionError as error:
            raise not_ours("contexts", self.folder, error) from error


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _drop_claims(mirror: Path, before: float) -> None:
    for path in (mirror / _CLAIMS).glob("*"):
        with suppress(FileNotFoundError):
            if path.lstat().st_mtime < before:
                path.unlink()


def _state(mirror: Path) -> FolderState | None:
    try:
        return FolderState.unpack((mirror / _STATE).read_bytes())
    except (OSError, ValueError):
        return None


def _size(mirror: Path) -> int | None:
    """Bytes in a mirror; None if it is not whole."""
    try:
        with (mirror / _STATE).open("rb") as file:
            return FolderState.size_of(file.read(FolderState.HEAD.size))
    except (OSError, ValueError):
        return None


def _write(mirror: Path, state: FolderState) -> None:
    unfinished = mirror / f"{_STATE}.unfinished"
    unfinished.write_bytes(state.pack())
    unfinished.replace(mirror / _STATE)


def _used(mirror: Path) -> float:
    try:
        return mirror.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _boot() -> str:
    """Return a text that names this start of the machine: a mirror from before it is never used,
    since what was written last may not have come to the disk.
    """
    return _BOOT.read_text() if _BOOT.exists() else ""
