"""How packed or copied build contexts get from the step that reads the source to the step that
builds.

Where the config names a context store, a context is packed into it, to be unpacked on whichever
worker builds. Where it names none, source and engine are on one machine, and the context is copied
into a folder of the worker's: what is not packed need not be unpacked. See
docs/adr/0009-local-contexts-are-copied.md.
"""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from imagemill import context
from imagemill.context import Choice, Manifest
from imagemill.files.tree import room
from imagemill.ports import ContextStore, Progress, StoredContext

Accept = Callable[[Manifest], None]
"""Raises if a manifest is not the one that was expected."""


class Contexts(Protocol):
    """Where the contexts of a config are kept while they are built."""

    def name(self, source_hash: str, build: str) -> str:
        """What the context of a build is called here."""

    def exists(self, name: str) -> bool:
        """Whether the context is there, whole."""

    def add(
        self, name: str, root: Path, dockerfile: Choice, accept: Accept, progress: Progress
    ) -> None:
        """Store the context of the source in `root`, unless `accept` raises over its manifest."""

    def stored(self, name: str) -> StoredContext:
        """The context, for a builder; it is not read, and nothing held open, before the builder
        wants its files.
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

    def folder(self, scratch: Path, progress: Progress) -> Path:
        with self.open() as stream:
            context.unpack(stream, scratch, progress)
        return scratch


@dataclass(frozen=True)
class Copied:
    """A context that lies unpacked on this machine (a `StoredContext`)."""

    path: Path
    uri: str | None = None

    def folder(self, scratch: Path, progress: Progress) -> Path:
        return self.path


@dataclass(frozen=True)
class PackedContexts:
    """Contexts in a store. Each build has its own, so that none loses it to another's end."""

    store: ContextStore

    def name(self, source_hash: str, build: str) -> str:
        return f"{source_hash}-{build}.tar.gz"

    def exists(self, name: str) -> bool:
        return self.store.exists(name)

    def add(
        self, name: str, root: Path, dockerfile: Choice, accept: Accept, progress: Progress
    ) -> None:
        with self.store.create(name) as stream:
            accept(context.pack(root, dockerfile, stream, progress))

    def stored(self, name: str) -> StoredContext:
        return Packed(lambda: self.store.open(name), self.store.uri(name))

    def delete(self, name: str) -> None:
        self.store.delete(name)


@dataclass(frozen=True)
class CopiedContexts:
    """Contexts in a folder of this machine. Each build has its own, so that none loses it to
    another's end.
    """

    path: Path

    def name(self, source_hash: str, build: str) -> str:
        return f"{source_hash}-{build}"

    def exists(self, name: str) -> bool:
        return (self.path / name).is_dir()

    def add(
        self, name: str, root: Path, dockerfile: Choice, accept: Accept, progress: Progress
    ) -> None:
        """Copied under another name first: whatever has its final name is whole."""
        unfinished = self.path / f".unfinished-{name}"
        with room(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(unfinished, ignore_errors=True)  # of this build's last worker, which died
            try:
                accept(context.copy(root, dockerfile, unfinished, progress))
                unfinished.rename(self.path / name)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise

    def stored(self, name: str) -> StoredContext:
        return Copied(self.path / name)

    def delete(self, name: str) -> None:
        if self.exists(name):
            shutil.rmtree(self.path / name)
