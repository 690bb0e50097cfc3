"""What the files of a source looked like when they were read last, as git's index has it: what has
not changed since is not read again.

A file is known by its device, inode, mode, size and two times; a folder by the same, and by what it
listed. The change time cannot be set by anybody, so a file whose content was swapped under the same
size and time shows. What changed within the clock's grain before it was read may change once more
without a trace: it is not trusted, as in git (https://git-scm.com/docs/racy-git).

An index is of one walk: with other ignore rules, or by another version, nothing in it counts.
"""

import hashlib
import json
import os
import re
import struct
import time
import uuid
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from operator import attrgetter
from pathlib import Path

from imagemill import __version__
from imagemill.context.entries import CODES, KINDS, Entries, Entry, Kind
from imagemill.context.manifest import FORMAT, Dockerfile, Manifest
from imagemill.files.tree import open_top
from imagemill.ports import Progress, Quiet

GRAIN_NS = 2_000_000_000
"""Nanoseconds within which a file system may give two changes the same time: 2 s on FAT, some
milliseconds on most. It also bounds how far a file server's clock may be behind ours.
"""

INDEXES = "indexes"
"""Name of the folder for all memories, among what makes the next build quick."""

AHEAD = "looked-ahead"
"""Name of the file by which the command line tells its own worker that it has looked."""

KEEP_SECONDS = 14 * 24 * 3600
"""How long an index is kept that nobody has used."""

_WIDTH = 6
_OTHERS = re.compile(rb"[^fx]")
"""Kinds that are no file."""
_MAGIC = b"imagemill index 1\n"
_LOOK_EVERY = 2_000
_GONE = (-1,) * _WIDTH
"""What is not there looks like nothing that is."""

Listing = Sequence[tuple[bytes, bool, bool]]
"""Name, whether it is a file and whether a folder, of each entry of a folder, in order."""

Looks = tuple[int, ...]
"""What a file or folder is known by."""


looks: Callable[[os.stat_result], Looks] = attrgetter(
    "st_dev", "st_ino", "st_mode", "st_size", "st_mtime_ns", "st_ctime_ns"
)
"""Returns what a file or folder is known by."""


def _looked_at(paths: list[bytes], top: int) -> "array[int]":
    """Return the looks of what is at these paths below the open folder `top`, one after another."""
    lstat = partial(os.lstat, dir_fd=top)
    try:
        return array("q", chain.from_iterable(map(looks, map(lstat, paths))))
    except OSError:  # something is gone
        found = array("q")
        for path in paths:
            try:
                found.extend(looks(lstat(path)))
            except OSError:
                found.extend(_GONE)
        return found


def listed(listing: Listing) -> bytes:
    """Return a digest of what a folder lists."""
    digest = hashlib.sha256()
    for name, is_file, is_folder in listing:
        digest.update(b"%b\0%d%d" % (name, is_file, is_folder))
    return digest.digest()


class Table:
    """Paths and what was there: a digest of 32 bytes each, and the looks."""

    def __init__(
        self,
        paths: list[bytes] | None = None,
        digests: bytes | bytearray = b"",
        rows: "array[int] | None" = None,
    ) -> None:
        self.paths = [] if paths is None else paths
        self.digests = bytearray(digests)
        self.rows = array("q") if rows is None else rows

    def add(self, path: bytes, digest: bytes, seen: Looks) -> None:
        self.paths.append(path)
        self.digests += digest.ljust(32, b"\0")
        self.rows.extend(seen)

    def row(self, number: int) -> Looks:
        return tuple(self.rows[_WIDTH * number : _WIDTH * (number + 1)])

    def put(self, number: int, digest: bytes, seen: Looks) -> None:
        self.digests[32 * number : 32 * (number + 1)] = digest.ljust(32, b"\0")
        self.rows[_WIDTH * number : _WIDTH * (number + 1)] = array("q", seen)

    def digest(self, number: int) -> bytes:
        return bytes(self.digests[32 * number : 32 * (number + 1)])

    def differing(self, top: int, progress: Progress) -> list[int]:
        """Return the numbers of those that do not look as they did, below the open folder `top`."""
        differing = []
        for begin in range(0, len(self.paths), _LOOK_EVERY):
            progress.check()
            end = begin + _LOOK_EVERY
            now = _looked_at(self.paths[begin:end], top)
            then = self.rows[_WIDTH * begin : _WIDTH * end]
            if now != then:
                differing += [
                    begin + at // _WIDTH
                    for at in range(0, len(now), _WIDTH)
                    if now[at : at + _WIDTH] != then[at : at + _WIDTH]
                ]
        return differing

    def distrust(self, since: int) -> None:
        """Forget the looks of what changed at `since` or later, in nanoseconds since 1970."""
        changed = zip(self.rows[4::_WIDTH], self.rows[5::_WIDTH], strict=True)
        late = [
            number
            for number, (mtime, ctime) in enumerate(changed)
            if mtime >= since or ctime >= since
        ]
        for number in late:
            self.rows[_WIDTH * number + 1] = 0  # no file has this inode

    def pack(self) -> bytes:
        names = b"\0".join(self.paths)
        head = struct.pack("<QQ", len(self.paths), len(names))
        return b"".join((head, names, self.digests, self.rows.tobytes()))


class _Reader:
    """Reads what `pack` wrote, piece by piece; `ValueError` if it ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, length: int) -> bytes:
        piece = self._data[self._at : self._at + length]
        if len(piece) < length:
            raise ValueError("it ends too early")
        self._at += length
        return piece

    def names(self, count: int, length: int) -> list[bytes]:
        names = self.take(length).split(b"\0") if count else []
        if len(names) != count:
            raise ValueError("it has not as many names as it says")
        return names

    def table(self) -> Table:
        count, length = struct.unpack("<QQ", self.take(16))
        names, digests = self.names(count, length), self.take(32 * count)
        rows = array("q")
        rows.frombytes(self.take(_WIDTH * rows.itemsize * count))
        return Table(names, digests, rows)


@dataclass
class Index:
    """One walk over a source: the folders that were listed, and the entries of the manifest."""

    rules: str
    """What the walk went by: `rules_of` its ignore rules."""
    folders: Table = field(default_factory=Table)
    entries: Table = field(default_factory=Table)
    """Of a folder the digest is empty, and what it looks like does not matter here."""
    kinds: bytearray = field(default_factory=bytearray)
    targets: list[bytes] = field(default_factory=list)
    """Of links, in their order."""
    dockerfile: str = ""
    """The line of the Dockerfile that `manifest` was made with."""
    manifest: str = ""
    """SHA-256 of the manifest of these entries; empty if it is not known."""
    digest: bytes = field(default=b"", compare=False)
    """Of the index as it was kept."""

    @cached_property
    def numbers(self) -> dict[bytes, int]:
        """Path → number of the entry."""
        return {path: number for number, path in enumerate(self.entries.paths)}

    def known(self, path: bytes, seen: Looks) -> str | None:
        """Return the SHA-256 of a file that looks as it did; None if it does not."""
        number = self.numbers.get(path)
        if number is None or self.entries.row(number) != seen:
            return None
        return self.entries.digest(number).hex()

    def add_folder(self, path: bytes, status: os.stat_result, listing: Listing) -> None:
        """Note a folder whose looks were taken before it was listed."""
        self.folders.add(path or b".", listed(listing), looks(status))

    def add(self, entry: Entry, seen: Looks) -> None:
        """Note an entry of the manifest that had these looks before it was read."""
        self.kinds.append(CODES[entry.kind])
        self.entries.add(entry.path, bytes.fromhex(entry.sha256), seen)
        if entry.kind == "link":
            self.targets.append(entry.target)

    def made(self) -> Entries:
        """Return the entries of the manifest."""
        paths, sizes = self.entries.paths, self.entries.rows[3::_WIDTH]
        found, targets = [b""] * len(paths), iter(self.targets)
        for other in _OTHERS.finditer(self.kinds):
            number = other.start()
            sizes[number] = 0
            if self.kinds[number] == CODES["link"]:
                found[number] = next(targets)
        return Entries(bytes(self.kinds), paths, sizes, bytes(self.entries.digests), found)

    def put(self, number: int, entry: Entry, seen: Looks) -> None:
        """Replace the file at `number`, of the same path."""
        self.kinds[number] = CODES[entry.kind]
        self.entries.put(number, bytes.fromhex(entry.sha256), seen)

    def alike(self, other: "Index") -> bool:
        """Whether the entries are the same, whatever they look like."""
        return (
            self.entries.paths == other.entries.paths
            and self.entries.digests == other.entries.digests
            and self.kinds == other.kinds
            and self.targets == other.targets
        )

    def facts(self) -> Iterator[tuple[bytes, tuple[Kind, bytes]]]:
        """Path of each entry, its kind and the digest of its content or the target of the link."""
        targets, digests = iter(self.targets), self.entries.digests
        for number, (code, path) in enumerate(zip(self.kinds, self.entries.paths, strict=True)):
            kind = KINDS[code]
            content = bytes(digests[32 * number : 32 * (number + 1)])
            yield path, (kind, next(targets) if kind == "link" else content)

    def differing(self, top: int, progress: Progress) -> list[int]:
        """Return the numbers of entries that do not look as they did, below the open folder `top`."""
        return [
            number
            for number in self.entries.differing(top, progress)
            if self.kinds[number] != CODES["dir"]  # what lists a folder says that it is one still
        ]

    def is_file(self, number: int) -> bool:
        """Whether the entry is a file."""
        return KINDS[self.kinds[number]] in ("file", "exec")

    def settle(self, begun: int) -> None:
        """Trust nothing that changed shortly before `begun`, when reading began, or later."""
        since = begun - GRAIN_NS
        self.folders.distrust(since)
        self.entries.distrust(since)

    def pack(self) -> bytes:
        """Return the index as bytes."""
        targets = b"\0".join(self.targets)
        head = json.dumps([self.rules, self.dockerfile, self.manifest]).encode()
        sizes = struct.pack("<QQQ", len(head), len(self.targets), len(targets))
        body = (sizes, head, targets, self.folders.pack(), self.entries.pack(), self.kinds)
        data = b"".join(body)
        return _MAGIC + hashlib.sha256(data).digest() + data

    @classmethod
    def unpack(cls, data: bytes) -> "Index":
        """Read what `pack` wrote; `ValueError` if it is damaged."""
        reader = _Reader(data)
        if reader.take(len(_MAGIC)) != _MAGIC:
            raise ValueError("it is no index")
        digest = reader.take(32)
        if hashlib.sha256(memoryview(data)[len(_MAGIC) + 32 :]).digest() != digest:
            raise ValueError("it is damaged")
        head, links, length = struct.unpack("<QQQ", reader.take(24))
        rules, dockerfile, manifest = json.loads(reader.take(head))
        targets = reader.names(links, length)
        folders, entries = reader.table(), reader.table()
        kinds = bytearray(reader.take(len(entries.paths)))
        return cls(rules, folders, entries, kinds, targets, dockerfile, manifest, digest)


class IndexedManifest(Manifest):
    """A manifest whose entries are made from an index when somebody asks for them.

    `sha256` is the manifest's own, where it is known.
    """

    index: Index

    def __init__(
        self,
        dockerfile: Dockerfile,
        index: Index,
        *,
        without_git: bool,
        warnings: tuple[str, ...],
        sha256: str = "",
    ) -> None:
        said = {"without_git": without_git, "warnings": warnings}
        known = {"dockerfile": dockerfile, "index": index, **said}
        self.__dict__.update(known | ({"sha256": sha256} if sha256 else {}))

    @property
    def paths(self) -> Sequence[bytes]:
        return self.index.entries.paths

    def __getattr__(self, name: str) -> Entries:
        if name != "entries":
            raise AttributeError(name)
        entries = self.index.made()
        self.__dict__["entries"] = entries
        return entries


def columns(manifest: Manifest) -> Index:
    """Return an index of the manifest's entries, whatever they look like."""
    index = Index("", dockerfile=manifest.dockerfile.line, manifest=manifest.sha256)
    if isinstance(manifest, IndexedManifest):
        known = manifest.index
        rows = array("q", bytes(len(known.entries.rows) * known.entries.rows.itemsize))
        rows[3::_WIDTH] = known.entries.rows[3::_WIDTH]
        index.entries = Table(known.entries.paths, known.entries.digests, rows)
        index.kinds, index.targets = known.kinds, known.targets
        return index
    for entry in manifest.entries:
        index.add(entry, (0, 0, 0, entry.size, 0, 0))
    return index


def rules_of(patterns: Iterable[str]) -> str:
    """Return what a walk goes by: our version, and the patterns of what is ignored."""
    return hashlib.sha256(json.dumps([__version__, FORMAT, *patterns]).encode()).hexdigest()


class Memory:
    """The index of one source, in a file of its own below `folder`, which is made mode 0700.

    `ahead` is a file through which one process tells the next that it has looked.
    """

    def __init__(self, folder: Path, root: Path, ahead: Path | None = None) -> None:
        real = os.path.realpath(os.fsencode(root))
        self._folder, self._root, self._ahead = folder, root, ahead
        self._path = folder / hashlib.sha256(real).hexdigest()

    def load(self, rules: str) -> Index | None:
        """Return the index; None if there is none by these rules, or it is damaged."""
        index = self._load()
        return index if index and index.rules == rules else None

    def _load(self) -> Index | None:
        try:
            return Index.unpack(self._path.read_bytes())
        except (OSError, ValueError):
            return None

    def look_ahead(self) -> None:
        """Look at the source for whoever wants its manifest next, and tell it if all looks as it did;
        what goes wrong is for that one to find.
        """
        index = self._load()
        if index is None or self._ahead is None:
            return
        with suppress(OSError):
            top = open_top(self._root)
            try:
                if not index.folders.differing(top, Quiet()) and not index.differing(top, Quiet()):
                    unfinished = self._ahead.with_suffix(".unfinished")
                    unfinished.write_bytes(index.digest)
                    self._ahead.hardlink_to(unfinished)  # unless somebody has asked already
            finally:
                os.close(top)

    def is_looked_at(self, index: Index) -> bool:
        """Whether all looked as in the index a moment ago; only the first who asks is told so, since
        it may change again.
        """
        if self._ahead is None:
            return False
        try:
            told = self._ahead.read_bytes() if self._ahead.exists() else b""
            self._ahead.write_bytes(b"")
        except OSError:
            return False
        return told == index.digest

    def keep(self, index: Index) -> None:
        """Write the index; one that cannot be written is not kept, and the source read again."""
        unfinished = self._path.with_suffix(f".{uuid.uuid4().hex}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished.write_bytes(index.pack())
            unfinished.replace(self._path)
        except OSError:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def use(self) -> None:
        """Note that the index was used, which keeps it; those that nobody uses are removed."""
        with suppress(OSError):
            os.utime(self._path)


def remove_unused(folder: Path, now: float | None = None) -> None:
    """Remove indexes that nobody has used for `KEEP_SECONDS`."""
    old = (time.time() if now is None else now) - KEEP_SECONDS
    for path in folder.glob("*"):
        with suppress(OSError):
            if path.lstat().st_mtime < old:
                path.unlink()
