"""A folder or an archive on this node.

A request must not make a worker read what is not meant for it, so both have to lie, links followed, below folders
that the operator names.
"""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from imagemill.errors import PermissionDenied, UserError
from imagemill.ports import Progress
from imagemill.reference import ImageReference
from imagemill.sources import archive
from imagemill.sources.options import SourceOptions


class LocalSource:
    """A folder, which is read where it is, or an archive, which is unpacked (see `imagemill.sources.archive`)."""

    image: ImageReference | None = None
    packed: str | None = None

    def __init__(self, text: str, options: SourceOptions) -> None:
        self._path = _path(text)
        self._roots = options.roots
        self._limits = archive.Limits(size=options.max_bytes, members=options.max_files)

    def pinned(self, progress: Progress) -> None:
        """See `Source.pinned`: what is on a disk may change."""

    def fetch(self, scratch: Path, progress: Progress) -> Path:
        """The folder itself, or `scratch` with the archive unpacked in it.

        `PermissionDenied` if it lies outside the roots, `UserError` if it is not there, or not fit.
        """
        path = self._allowed()
        if path.is_dir():
            return path
        if not path.is_file():
            raise UserError(
                f"There is no folder and no archive at {self._path} on this worker",
                "the path has to exist on the worker's node: use a volume that both have",
            )
        scratch.mkdir(exist_ok=True)
        archive.unpack(path, scratch, progress, self._limits)
        return scratch

    def _allowed(self) -> Path:
        path = Path(os.path.realpath(self._path))
        if not any(path.is_relative_to(os.path.realpath(root)) for root in self._roots):
            allowed = ", ".join(map(str, self._roots)) or "none"
            raise PermissionDenied(
                f"The worker may not read sources at {self._path}; folders that it may: {allowed}",
                "put the source below one of them, or have the operator add its folder to IMAGEMILL_SOURCE_ROOTS",
            )
        return path


def _path(text: str) -> Path:
    if "://" in text:
        uri = urlsplit(text)
        if uri.netloc not in ("", "localhost"):
            raise UserError(
                f"{text!r} is on another host", "write file:///PATH, and have the path on the worker's node"
            )
        text = unquote(uri.path)
    path = Path(text)
    if not path.is_absolute():
        raise UserError(f"The source {text!r} is a relative path", "give an absolute one: workers run in other folders")
    return path
