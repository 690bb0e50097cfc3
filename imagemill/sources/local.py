"""A folder or an archive on this node.

A request must not make a worker read what is not meant for it, so both have to lie, links followed,
below folders that the operator names.
"""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from imagemill.errors import PermissionDenied, UserError
from imagemill.ports import Progress
from imagemill.reference import ImageReference
from imagemill.sources import archive
from imagemill.sources.options import SourceOptions

_SHA256 = re.compile(r"[0-9a-f]{64}")


class LocalSource:
    """A folder, which is read where it is, or an archive, which is unpacked (see
    `imagemill.sources.archive`).
    """

    image: ImageReference | None = None

    def __init__(self, text: str, options: SourceOptions) -> None:
        self._path, self._sha256 = _path(text)
        self._roots = options.roots
        self._limits = archive.Limits(size=options.max_bytes, members=options.max_files)

    @property
    def place(self) -> str:
        return os.path.realpath(self._path)

    def pinned(self, progress: Progress) -> str | None:
        """See `Source.pinned`: what is on a disk may change, unless its digest is given."""
        if not self._sha256:
            return None
        self._allowed()  # also where its content is known, and so is not read again
        return f"{self._path.as_uri()}#sha256={self._sha256}"

    def fetch(self, scratch: Path, progress: Progress) -> Path:
        """The folder itself, or `scratch` with the archive unpacked in it.

        `PermissionDenied` if it lies outside the roots, `UserError` if it is not there, or not fit.
        """
        path = self._allowed()
        if path.is_dir() and not self._sha256:
            return path
        if not path.is_file():
            raise UserError(
                f"There is no folder and no archive at {self._path} on this worker",
                "the path has to exist on the worker's node: use a volume that both have",
            )
        scratch.mkdir(exist_ok=True)
        if self._sha256:
            self._check(path)
        archive.unpack(path, scratch, progress, self._limits)
        return scratch

    def _check(self, path: Path) -> None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self._sha256:
            raise UserError(
                f"The archive {path} has the SHA-256 {found}, where {self._sha256} is given",
                "see which of the two is right, and give the archive or the digest that is meant",
            )

    def _allowed(self) -> Path:
        path = Path(os.path.realpath(self._path))
        if not any(path.is_relative_to(os.path.realpath(root)) for root in self._roots):
            allowed = ", ".join(map(str, self._roots)) or "none"
            raise PermissionDenied(
                f"The worker may not read sources at {self._path}; folders that it may: {allowed}",
                "put the source below one of them, or have the operator add its folder to IMAGEMILL_SOURCE_ROOTS",
            )
        return path


def _path(text: str) -> tuple[Path, str]:
    """The path, and the digest that the archive there is to have; empty if none is given."""
    sha256 = ""
    if "://" in text:
        text, _, fragment = text.partition("#")
        sha256 = fragment.removeprefix("sha256=").lower()
        if fragment and not (fragment.startswith("sha256=") and _SHA256.fullmatch(sha256)):
            raise UserError(
                f"{fragment!r} is no option of an archive on the worker",
                "write #sha256= and 64 hex digits",
            )
        uri = urlsplit(text)
        if uri.netloc not in ("", "localhost"):
            raise UserError(
                f"{text!r} is on another host",
                "write file:///PATH, and have the path on the worker's node",
            )
        text = unquote(uri.path)
    path = Path(text)
    if not path.is_absolute():
        raise UserError(
            f"The source {text!r} is a relative path",
            "give an absolute one: workers run in other folders",
        )
    return path, sha256
