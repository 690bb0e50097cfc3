"""Reads single files of a source, and makes sure that they still are what was hashed."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagemill.context import Manifest
from imagemill.context.walk import changed, reading_failed
from imagemill.files.tree import open_below, open_folder
from imagemill.ports import Progress

_CHUNK = 1 << 20


class SourceFiles:
    """The files of the source in the folder `root`, as its manifest has them."""

    def __init__(self, root: Path, manifest: Manifest, progress: Progress) -> None:
        self._root = os.path.realpath(os.fsencode(root))
        self._entries = {entry.path: entry for entry in manifest.entries}
        self._progress = progress

    @contextmanager
    def open(self, path: bytes) -> Iterator[Iterator[bytes]]:
        """Open a file; gives its content in chunks, the last of them only if all are as they were.

        `UserError` if they are not.
        """
        top = open_folder(self._root)
        try:
            with open_below(top, path) as file:
                yield self._checked(path, iter(lambda: file.read(_CHUNK), b""))
        except OSError as error:
            reading_failed(path, error)
        finally:
            os.close(top)

    def _checked(self, path: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
        entry, digest, size = self._entries[path], hashlib.sha256(), 0
        for chunk in chunks:
            self._progress.check()
            digest.update(chunk)
            size += len(chunk)
            if size > entry.size:
                break
            yield chunk
        if size != entry.size or digest.hexdigest() != entry.sha256:
            raise changed(path)
