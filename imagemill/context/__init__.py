"""The build context: which files of a source a build can see, the hash that names them, and the
packed form.

`manifest` and `pack` read the source in the same way, so a source that has changed between the two
shows: its manifests differ. Both read a file once, by its open descriptor, and follow no link.
"""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from os import read
from pathlib import Path
from typing import BinaryIO, Protocol

from imagemill.context import tarball
from imagemill.context.copying import Copier
from imagemill.context.costs import costs, notes
from imagemill.context.digests import Digests
from imagemill.context.dockerfile import Choice, Generated, Generator, Given, Recipe, find
from imagemill.context.entries import Entries, Entry, Kind
from imagemill.context.index import Index, IndexedManifest, Memory, listed, looks, rules_of
from imagemill.context.manifest import FORMAT, Dockerfile, Manifest, source_hash
from imagemill.context.walk import Found, Walk, changed, listing, reading_failed
from imagemill.errors import UserError
from imagemill.files.tree import (
    Tree,
    open_file,
    open_folder_below,
    open_top,
    room,
    shown,
)
from imagemill.meter import Meter
from imagemill.place import machine
from imagemill.ports import Progress

__all__ = [
    "CONTEXT",
    "DOCKERFILE",
    "FORMAT",
    "Accept",
    "Choice",
    "Entries",
    "Entry",
    "Generated",
    "Generator",
    "Given",
    "Manifest",
    "bundle",
    "copy",
    "costs",
    "manifest",
    "notes",
    "pack",
    "source_hash",
    "unpack",
]

DOCKERFILE, CONTEXT = tarball.DOCKERFILE, tarball.CONTEXT
"""Names of the Dockerfile and of the folder with the build context, in a folder that `unpack`
filled.
"""

_CHUNK = 1 << 20

_Undigested = tuple[Kind, bytes, int]
"""Kind, path and size of a file whose content is with the `Digests`."""


def manifest(
    root: Path,
    dockerfile: Choice,
    progress: Progress,
    memory: Memory | None = None,
    wanted: Callable[[Manifest], bool] | None = None,
) -> Manifest:
    """Read the source in the folder `root`: what a build by its `dockerfile` (default:
    `Dockerfile`) can see.

    Where there is no Dockerfile, one is generated if a generator is given. What has not changed
    since `memory` has it is not read again. Where what it has is `wanted`, no file is looked at:
    whoever reads one then makes sure that it is what the manifest says.

    `UserError` if the source is not fit for a build, and says why; `PermissionDenied` if the worker
    may not read it.
    """
    if memory is None:
        return _read(root, dockerfile, _Nowhere(), progress)
    with _opened(root) as top, Digests() as digests:
        recipe = find(root, top, dockerfile)
        return _remembered(top, recipe, memory, wanted, digests, progress)


def pack(root: Path, dockerfile: Choice, out: BinaryIO, progress: Progress) -> Manifest:
    """Pack the source into `out` as `.tar.gz` (see `imagemill.context.tarball`) and return the
    manifest as packed.

    It is made from the very bytes that were packed: if it differs from an earlier one, so did the
    source. Errors are those of `manifest`, and those of `out`.
    """
    with tarball.Writer(out) as writer:
        return _read(root, dockerfile, writer, progress)


def copy(root: Path, dockerfile: Choice, folder: Path, progress: Progress) -> Manifest:
    """Copy the source into `folder`, which is created, as `unpack` would lay it out; returns the
    manifest as copied.

    Errors are those of `manifest`; `OperatorError` if the disk is full.
    """
    with room(folder):
        folder.mkdir(parents=True)
        with Copier(folder) as copier:
            return _read(root, dockerfile, copier, progress)


def unpack(stream: BinaryIO, folder: Path, progress: Progress) -> None:
    """Unpack a packed context into `folder`, which is created if it is not there.

    `OperatorError` if the stream is damaged or the disk full. Files that are there already may be
    replaced.
    """
    with room(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with Tree(folder, tarball.MTIME) as tree:
            tarball.unpack(stream, tree, progress)


def bundle(root: Path, dockerfile: Choice, out: BinaryIO, progress: Progress) -> Manifest:
    """Pack the source into `out` as a `.tar.gz` that is a source itself, of the same manifest,
    which is returned.

    Besides what a build can see it has the Dockerfile and the ignore file, where they are hidden
    from the build. Errors are those of `manifest`, and those of `out`.
    """
    with tarball.Writer(out, top="") as writer:
        bundled = _Bundle(writer)
        manifest, recipe = _read_all(root, dockerfile, bundled, progress)
        there = set(manifest.paths)
        for path, content in recipe.files.items():
            if path not in there:
                writer.file(path, False, len(content), content)
    return manifest


class _Bundle:
    """The sink of a source that is packed as one: the Dockerfile comes at its own place."""

    done = "packed"

    def __init__(self, writer: tarball.Writer) -> None:
        self.folder, self.link, self.file, self.write = (
            writer.folder,
            writer.link,
            writer.file,
            writer.write,
        )

    def dockerfile(self, content: bytes) -> None: ...


Accept = Callable[[Manifest], None]
"""Raises if a manifest is not the one that was expected."""


class _Sink(Protocol):
    """Where entries go while they are read."""

    done: str
    """What has become of the bytes that went there, in a word."""

    def dockerfile(self, content: bytes) -> None: ...
    def folder(self, path: bytes) -> None: ...
    def link(self, path: bytes, target: bytes) -> None: ...
    def file(self, path: bytes, executable: bool, size: int, content: bytes) -> None: ...
    def write(self, data: bytes) -> None: ...


class _Nowhere:
    """The sink for those who want the manifest alone."""

    done = "hashed"

    def dockerfile(self, content: bytes) -> None: ...
    def folder(self, path: bytes) -> None: ...
    def link(self, path: bytes, target: bytes) -> None: ...
    def file(self, path: bytes, executable: bool, size: int, content: bytes) -> None: ...
    def write(self, data: bytes) -> None: ...


def _remembered(
    top: int,
    recipe: Recipe,
    memory: Memory,
    wanted: Callable[[Manifest], bool] | None,
    digests: Digests,
    progress: Progress,
) -> Manifest:
    """Return the manifest, by what is remembered of the source and by what has changed."""
    begun, rules = time.time_ns(), rules_of([f"git: {recipe.git}", *recipe.ignore.texts])
    known, dockerfile = memory.load(rules), _dockerfile(recipe)
    made = partial(
        IndexedManifest, dockerfile, without_git=recipe.without_git, warnings=recipe.warnings
    )
    if wanted and known and known.manifest and known.dockerfile == dockerfile.line:
        manifest = made(known, sha256=known.manifest)
        if wanted(manifest):
            memory.use()
            return manifest
    changed_ones = None
    if known is not None:
        looked = memory.is_looked_at(known)
        changed_ones = 0 if looked else _changes(known, top, digests, progress)
    if known is None or changed_ones is None:
        index = _walked(top, recipe, digests, progress, known or Index(rules))
    else:
        index = known
    fresh = known is index and not changed_ones and index.dockerfile == dockerfile.line
    manifest = made(index, sha256=index.manifest if fresh else "")
    if fresh:
        memory.use()
    else:
        index.dockerfile, index.manifest = dockerfile.line, manifest.sha256
        index.settle(begun)
        memory.keep(index)
    return manifest


def _changes(index: Index, top: int, digests: Digests, progress: Progress) -> int | None:
    """Bring the index up to date, where only contents have changed: how many. None if more has."""
    for number in index.folders.differing(top, progress):
        path = index.folders.paths[number]
        try:
            folder = open_folder_below(top, path)
        except OSError:
            return None
        try:
            status = os.fstat(folder)
            if listed(listing(folder, path)) != index.folders.digest(number):
                return None
        finally:
            os.close(folder)
        index.folders.put(number, index.folders.digest(number), looks(status))
    differing, paths = index.differing(top, progress), index.entries.paths
    if not all(index.is_file(number) and _is_regular(paths[number], top) for number in differing):
        return None
    meter = Meter(_Nowhere.done, progress)
    found_ones = [(number, *_read_anew(paths[number], top, digests, meter)) for number in differing]
    sha256s = digests.sha256s()
    for number, entry, status in found_ones:
        whole = entry if isinstance(entry, Entry) else Entry(*entry, next(sha256s))
        index.put(number, whole, looks(status))
    return len(found_ones)


def _is_regular(path: bytes, top: int) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path, dir_fd=top).st_mode)
    except OSError:
        return False


def _read_anew(
    path: bytes, top: int, digests: Digests, meter: Meter
) -> tuple[Entry | _Undigested, os.stat_result]:
    parent, _, name = path.rpartition(b"/")
    try:
        within = open_folder_below(top, parent)
    except OSError as error:
        reading_failed(path, error)
    try:
        return _file(Found(path, name, within, True, False), _Nowhere(), digests, meter)
    finally:
        os.close(within)


def _walked(top: int, recipe: Recipe, digests: Digests, progress: Progress, known: Index) -> Index:
    """Return the index of a walk over the source, in which files that are `known` are not read."""
    index = Index(known.rules)
    walk = Walk(recipe.ignore, progress, git=recipe.git, seen=index.add_folder)
    meter = Meter(_Nowhere.done, progress)
    found_ones: list[tuple[Entry | _Undigested, os.stat_result]] = []
    for found in walk.entries(top):
        if found.is_file:
            found_ones.append(_file(found, _Nowhere(), digests, meter, known))
        else:
            found_ones.append(_other(found, _Nowhere()))
    sha256s = digests.sha256s()
    for entry, status in found_ones:
        whole = entry if isinstance(entry, Entry) else Entry(*entry, next(sha256s))
        index.add(whole, looks(status))
    if not walk.is_whole:
        index.rules = ""  # what could not be listed would not be missed
    return index


def _read(root: Path, dockerfile: Choice, sink: _Sink, progress: Progress) -> Manifest:
    return _read_all(root, dockerfile, sink, progress)[0]


def _read_all(
    root: Path, dockerfile: Choice, sink: _Sink, progress: Progress
) -> tuple[Manifest, Recipe]:
    with _opened(root) as top, Digests() as digests:
        recipe = find(root, top, dockerfile)
        sink.dockerfile(recipe.dockerfile)
        entries: list[Entry | _Undigested] = []
        meter = Meter(sink.done, progress)
        for found in Walk(recipe.ignore, progress, git=recipe.git).entries(top):
            read_one = _file(found, sink, digests, meter) if found.is_file else _other(found, sink)
            entries.append(read_one[0])
        sha256s = digests.sha256s()
    manifest = Manifest(
        _dockerfile(recipe),
        tuple(
            entry if isinstance(entry, Entry) else Entry(*entry, next(sha256s)) for entry in entries
        ),
        recipe.without_git,
        recipe.warnings,
    )
    return manifest, recipe


def _dockerfile(recipe: Recipe) -> Dockerfile:
    sha256 = hashlib.sha256(recipe.dockerfile).hexdigest()
    return Dockerfile(recipe.path, sha256, recipe.dockerfile, recipe.generated)


@contextmanager
def _opened(root: Path) -> Iterator[int]:
    try:
        top = open_top(root)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"There is no folder {shown(os.path.realpath(os.fsencode(root)))}",
            f"name a folder that exists on {machine()}",
        ) from None
    except OSError as error:
        reading_failed(b"", error)
    try:
        yield top
    finally:
        os.close(top)


def _file(
    found: Found, sink: _Sink, digests: Digests, meter: Meter, known: Index | None = None
) -> tuple[Entry | _Undigested, os.stat_result]:
    """Read a file to `sink`; one that is `known` is not read, and nothing of it goes there."""
    path, name, within, _, _ = found
    meter.check()
    try:
        descriptor = open_file(name, within)
    except OSError as error:
        reading_failed(path, error)
    try:
        status = os.fstat(descriptor)
        mode, size = status.st_mode, status.st_size
        if not stat.S_ISREG(mode):
            raise changed(path)
        kind = _kind(mode)
        if known and (sha256 := known.known(path, looks(status))):
            return Entry(kind, path, size, sha256), status
        # One byte more is asked for than there should be, so that a file that has grown shows.
        content = read(descriptor, size + 1 if size < _CHUNK else _CHUNK)
        meter.add(len(content))
        sink.file(path, kind == "exec", size, content)
        if len(content) == size < _CHUNK:
            digests.add(content)
        else:
            with digests.large() as update:
                update(content)
                for chunk in _rest(path, descriptor, size - len(content), meter):
                    update(chunk)
                    sink.write(chunk)
        return (kind, path, size), status
    finally:
        os.close(descriptor)


def _kind(mode: int) -> Kind:
    return "exec" if mode & stat.S_IXUSR else "file"


def _rest(path: bytes, descriptor: int, left: int, meter: Meter) -> Iterator[bytes]:
    """Yield what is left to read of a file, which must be `left` bytes."""
    while left >= 0:
        meter.check()
        chunk = read(descriptor, min(left + 1, _CHUNK))
        if not chunk:
            break
        meter.add(len(chunk))
        left -= len(chunk)
        yield chunk
    if left:
        raise changed(path)


def _other(found: Found, sink: _Sink) -> tuple[Entry, os.stat_result]:
    """Return what is no file: a folder, a link, or a socket, which is an empty file to BuildKit
    (fsutil's `stat.go`).
    """
    try:
        status = os.stat(found.name, dir_fd=found.within, follow_symlinks=False)
        mode = status.st_mode
        if found.is_folder:
            sink.folder(found.path)
            return Entry("dir", found.path), status
        target = os.readlink(found.name, dir_fd=found.within) if stat.S_ISLNK(mode) else b""
    except OSError as error:
        reading_failed(found.path, error)
    if target:
        # As docker has it, also where it leads out of the source: its text goes along, and nobody
        # here ever follows it.
        sink.link(found.path, target)
        return Entry("link", found.path, target=target), status
    if stat.S_ISSOCK(mode):
        kind = _kind(mode)
        sink.file(found.path, kind == "exec", 0, b"")
        return Entry(kind, found.path, 0, hashlib.sha256().hexdigest()), status
    what = "a FIFO" if stat.S_ISFIFO(mode) else "a device"
    raise UserError(
        f"The source has {what} in it: {shown(found.path)}",
        "list it in .dockerignore, or remove it",
    )
