"""A build context as a folder: laid out like the packed one, for a builder on the same machine."""

from pathlib import Path
from types import TracebackType
from typing import Self

from imagemill.context.tarball import CONTEXT, DOCKERFILE, IGNORE_NOTHING, MTIME
from imagemill.files.tree import Tree, write_all

_TOP = f"{CONTEXT}/".encode()


class Copier:
    """Copies a context into an empty folder, entry by entry."""

    done = "copied"

    def __init__(self, folder: Path) -> None:
        self._tree = Tree(folder, MTIME)
        self._file: tuple[int, bool] | None = None
        """The file that is being written: its descriptor, and whether it is executable."""

    def __enter__(self) -> Self:
        self._tree.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
        self._tree.__exit__(kind, error, traceback)

    def dockerfile(self, content: bytes) -> None:
        """Begin with the Dockerfile."""
        for name, data in ((DOCKERFILE, content), (f"{DOCKERFILE}.dockerignore", IGNORE_NOTHING)):
            self._tree.file(name.encode(), False, [data])
        self._tree.folder(CONTEXT.encode())

    def folder(self, path: bytes) -> None:
        self._end()
        self._tree.folder(_TOP + path)

    def link(self, path: bytes, target: bytes) -> None:
        self._end()
        self._tree.link(_TOP + path, target)

    def file(self, path: bytes, executable: bool, size: int, content: bytes) -> None:
        """Begin a file, of which `content` are the first bytes; `write` brings the others."""
        self._end()
        self._file = self._tree.begin(_TOP + path), executable
        self.write(content)

    def write(self, data: bytes) -> None:
        assert self._file is not None
        write_all(self._file[0], data)

    def _end(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            self._tree.end(*file)
