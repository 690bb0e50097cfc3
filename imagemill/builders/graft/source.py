"""Reads single files of a source, and makes sure that they still are what was hashed."""

import hashlib
import os
import posixpath
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from imagemill.context import Entries, Entry, Manifest
from imagemill.context.walk import changed, reading_failed
from imagemill.files.tree import open_file, open_folder, open_folder_below
from imagemill.meter import Meter
from imagemill.ports import Progress

_CHUNK = 1 << 20


class SourceFiles:
    """The files of the source in the folder `root`, as its manifest has them."""

    def __init__(self, root: Path, manifest: Manifest, progress: Progress) -> None:
        self._root = os.path.realpath(os.fsencode(root))
        self._entries = Entries.of(manifest.entries)
        self._meter = Meter("read", progress)
        self._folder: tuple[bytes, int] | None = None
        """The folder of the file before, which most often is that of the next one: path, and
        descriptor.
        """

    def __enter__(self) -> Self:
        self._top = open_folder(self._root)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()
        os.close(self._top)

    def chunks(self, path: bytes) -> Iterator[bytes]:
        """Yield the content of a file, the last of it only if all is as it was; `UserError` if it
        is not.
        """
        self._meter.check()
        entry = self._entries.find(path)
        assert entry is not None
        if not entry.size:
            return  # it may be a socket, which cannot be opened
        try:
            folder, name = posixpath.split(path)
            if self._folder is None or self._folder[0] != folder:
                self._leave()
                self._folder = folder, open_folder_below(self._top, folder)
            opened = open_file(name, self._folder[1])
            with closing(os.fdopen(opened, "rb", buffering=0)) as file:
                yield from self._checked(entry, iter(lambda: file.read(_CHUNK), b""))
        except OSError as error:
            reading_failed(path, error)

    def _checked(self, entry: Entry, chunks: Iterator[bytes]) -> Iterator[bytes]:
        digest, held, left = hashlib.sha256(), b"", entry.size
        for chunk in chunks:
            if held:
                self._meter.check()
                yield held
            self._meter.add(len(chunk))
            digest.update(chunk)
            held, left = chunk, left - len(chunk)
            if left < 0:
                break
        if left or digest.hexdigest() != entry.sha256:
            raise changed(entry.path)
        yield held

    def _leave(self) -> None:
        if self._folder is not None:
            os.close(self._folder[1])
            self._folder = None
