"""Brings a context that was copied before up to date in place: what is the same is not touched."""

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from imagemill.context.entries import Entry
from imagemill.context.index import Index, columns
from imagemill.context.manifest import Manifest
from imagemill.context.tarball import CONTEXT, DOCKERFILE, MTIME
from imagemill.context.walk import changed, reading_failed
from imagemill.files.tree import Tree, open_below, open_top
from imagemill.meter import Meter
from imagemill.ports import Progress

MOST_TIMES = 1_000_000_000
"""How many times that differ there are within the second that all packed files have."""

_CHUNK = 1 << 20
_TOP = f"{CONTEXT}/".encode()


@dataclass(frozen=True)
class FolderState:
    """What a folder holds."""

    HEAD: ClassVar = struct.Struct("<QQ")

    index: Index
    size: int
    """Bytes of all files."""
    count: int
    """How many times were given to files that were written anew."""

    @property
    def manifest(self) -> str:
        """SHA-256 of the manifest."""
        return self.index.manifest

    @classmethod
    def of(cls, manifest: Manifest, count: int) -> "FolderState":
        """Return the state of a folder that holds what `manifest` lists."""
        index = columns(manifest)
        return cls(index, manifest.size, count)

    def pack(self) -> bytes:
        """Return the state as bytes."""
        return self.HEAD.pack(self.size, self.count) + self.index.pack()

    @classmethod
    def unpack(cls, data: bytes) -> "FolderState":
        """Read what `pack` wrote; `ValueError` if it is damaged."""
        size, count = cls._head(data)
        return cls(Index.unpack(data[cls.HEAD.size :]), size, count)

    @classmethod
    def size_of(cls, head: bytes) -> int:
        """`size`, from the first bytes that `pack` wrote; `ValueError` if they are damaged."""
        return cls._head(head)[0]

    @classmethod
    def _head(cls, data: bytes) -> tuple[int, int]:
        try:
            size, count = cls.HEAD.unpack_from(data)
        except struct.error as error:
            raise ValueError("it ends too early") from error
        return size, count


def keeps_times(folder: Path) -> bool:
    """Whether the file system of a copied context keeps the nanoseconds of a time."""
    path, time = folder / DOCKERFILE, MTIME * MOST_TIMES
    os.utime(path, ns=(time, time + 1))
    kept = path.stat().st_mtime_ns == time + 1
    os.utime(path, ns=(time, time))
    return kept


def update(
    folder: Path, state: FolderState, root: Path, manifest: Manifest, progress: Progress
) -> FolderState:
    """Make `folder`, which holds `state`, hold what `manifest` lists of the source in `root`.

    What is read has to be what the manifest says: a `UserError` if it is not. Where this raises,
    nothing is known of the folder any more.
    """
    new = FolderState.of(manifest, state.count)
    times = iter(range(MTIME * MOST_TIMES + state.count + 1, (MTIME + 1) * MOST_TIMES))
    source = open_top(root)
    try:
        with Tree(folder, MTIME) as tree:
            if new.index.dockerfile != state.index.dockerfile:
                tree.file(DOCKERFILE.encode(), False, [manifest.dockerfile.content], next(times))
            removed, written = _differences(state.index, new.index)
            for path, is_folder in removed:
                progress.check()
                tree.remove(_TOP + path, is_folder)
            meter = Meter("copied", progress)
            for entry in written:
                meter.check()
                _write(entry, source, tree, times, meter)
    finally:
        os.close(source)
    return replace(new, count=next(times) - MTIME * MOST_TIMES)


def _write(entry: Entry, source: int, tree: Tree, times: Iterator[int], meter: Meter) -> None:
    path = _TOP + entry.path
    if entry.kind == "dir":
        tree.folder(path)
    elif entry.kind == "link":
        tree.link(path, entry.target, next(times))
    else:
        content = _content(entry, source, meter)
        tree.file(path, entry.kind == "exec", content, next(times))


def _content(entry: Entry, source: int, meter: Meter) -> Iterator[bytes]:
    """Yield the content of a file of the source, which must be what the manifest says."""
    if not entry.size:
        return  # it may be a socket, which cannot be opened
    digest = hashlib.sha256()
    try:
        with open_below(source, entry.path) as file:
            while chunk := file.read(_CHUNK):
                meter.check()
                meter.add(len(chunk))
                digest.update(chunk)
                yield chunk
    except OSError as error:
        reading_failed(entry.path, error)
    if digest.hexdigest() != entry.sha256:
        raise changed(entry.path)


def _differences(old: Index, new: Index) -> tuple[list[tuple[bytes, bool]], list[Entry]]:
    """Return what is to be removed, each folder after what is in it, and what is to be written,
    each folder before it.
    """
    if old.alike(new):
        return [], []
    before, after = dict(old.facts()), dict(new.facts())
    removed = [
        (path, fact[0] == "dir")
        for path, fact in before.items()
        if path not in after or (fact[0] == "dir") != (after[path][0] == "dir")
    ]
    gone = {path for path, _ in removed}
    entries = new.made()
    written = [
        entry
        for entry, (path, fact) in zip(entries, after.items(), strict=True)
        if path in gone or before.get(path) != fact
    ]
    return removed[::-1], written
