"""How packed or copied build contexts get from the step that reads the source to the step that
builds.

Where the config names a context store, a context is packed into it, to be unpacked on whichever
worker builds. Where it names none, source and engine are on one machine, and the context is a
folder of the worker's, which the next build of the source goes on with. See
docs/adr/0015-one-context-folder-for-a-source.md.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from imagemill import context
from imagemill.context import Accept, Choice, tarball
from imagemill.context.index import Memory
from imagemill.context.mirrors import FolderClaim, MirroredTree, Mirrors
from imagemill.ports import ContextStore, Progress, StoredContext


@dataclass(frozen=True)
class Origin:
    """Where a context comes from."""

    name: str
    """Names the source, and is the same from one build of it to the next."""
    source_hash: str
    build: str
    """Id of the build that is going to read the context."""
    dockerfile: Choice
    fetched: Callable[[], AbstractContextManager[Path]]
    """Brings the source here for a block."""
    memory: Callable[[Path], Memory | None]
    """What is known of the files below that folder."""


class Contexts(Protocol):
    """Where the contexts of a config are kept while they are built."""

    def find(self, source_hash: str, build: str) -> str | None:
        """Return the name of the build's context, if it is stored whole already."""

    def add(self, origin: Origin, accept: Accept, progress: Progress) -> str:
        """Store the context, unless `accept` raises over its manifest; returns its name."""

    def exists(self, name: str) -> bool:
        """Whether the context is there, whole."""

    def stored(self, name: str) -> StoredContext:
        """Return the context, for a builder; it is not read, and nothing held open, before the
        builder wants its files.
        """

    def delete(self, name: str) -> None:
        """Remove the context; no error if it is not there."""


@dataclass(frozen=True)
class Packed:
    """A packed context (a `StoredContext`). Kaniko reads it by its `uri`, so that no worker needs
    to open it.
    """

    open: Callable[[], AbstractContextManager[BinaryIO]]
    uri: str | None = None

    def dockerfile(self) -> str:
        with self.open() as stream:
            return tarball.dockerfile(stream).decode(errors="replace")

    def folder(self, scratch: Path, progress: Progress) -> Path:
        with self.open() as stream:
            context.unpack(stream, scratch, progress)
        return scratch


@dataclass(frozen=True)
class Copied:
    """A context that lies unpacked on this machine (a `StoredContext`), at a path of its source's."""

    path: Path
    uri: str | None = None

    def dockerfile(self) -> str:
        return (self.path / context.DOCKERFILE).read_text(errors="replace")

    def folder(self, scratch: Path, progress: Progress) -> Path:
        return self.path


@dataclass(frozen=True)
class PackedContexts:
    """Contexts in a store. Each build has its own, so that none loses it to another's end."""

    store: ContextStore

    def find(self, source_hash: str, build: str) -> str | None:
        name = _packed_name(source_hash, build)
        return name if self.exists(name) else None

    def add(self, origin: Origin, accept: Accept, progress: Progress) -> str:
        name = _packed_name(origin.source_hash, origin.build)
        with origin.fetched() as root, self.store.create(name) as stream:
            accept(context.pack(root, origin.dockerfile, stream, progress))
        return name

    def exists(self, name: str) -> bool:
        return self.store.exists(name)

    def stored(self, name: str) -> StoredContext:
        return Packed(lambda: self.store.open(name), self.store.uri(name))

    def delete(self, name: str) -> None:
        self.store.delete(name)


def _packed_name(source_hash: str, build: str) -> str:
    return f"{source_hash}-{build}.tar.gz"


@dataclass(frozen=True)
class KeptContexts:
    """Contexts in folders of this machine: one for a source, kept from build to build."""

    mirrors: Mirrors
    home: Path | None = None
    """A folder without which no build of ours goes on."""

    def find(self, source_hash: str, build: str) -> None:
        return None

    def add(self, origin: Origin, accept: Accept, progress: Progress) -> str:
        with origin.fetched() as root:
            return self.mirrors.claim(
                FolderClaim(origin.name, origin.build, self.home),
                MirroredTree(root, origin.dockerfile, origin.memory(root)),
                accept,
                progress,
            )

    def exists(self, name: str) -> bool:
        return self.mirrors.is_claimed(name)

    def stored(self, name: str) -> StoredContext:
        return Copied(self.mirrors.source(name))

    def delete(self, name: str) -> None:
        self.mirrors.release(name)
