"""A folder or an archive on this node.

A request must not make a worker read what is not meant for it, so both have to lie, links followed,
below folders that the operator names.
"""

import errno
import hashlib
import os
import re
import stat
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from imagemill.errors import PermissionDenied, UserError
from imagemill.files.tree import OpenFolder, open_below, open_folder, open_folder_below
from imagemill.place import machine
from imagemill.ports import Progress
from imagemill.reference import ImageReference
from imagemill.sources.options import SourceOptions
from imagemill.sources.top import meant

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FRAGMENT = re.compile(r"#(?:subdirectory|sha256)=")


class LocalSource:
    """A folder, which is read where it is, or an archive, which is unpacked (see
    `imagemill.sources.archive`).
    """

    image: ImageReference | None = None

    def __init__(self, text: str, options: SourceOptions) -> None:
        self._path, self._sha256, self._folder = _path(text)
        self._roots, self._check_place = options.roots, options.check_place
        self._max_bytes, self._max_files = options.max_bytes, options.max_files

    @property
    def place(self) -> str:
        return os.path.realpath(self._path)

    def pinned(self, progress: Progress) -> str | None:
        """See `Source.pinned`: what is on a disk may change, unless its digest is given."""
        if not self._sha256:
            return None
        self._allowed()  # also where its content is known, and so is not read again
        folder = f"&subdirectory={quote(self._folder)}" if self._folder else ""
        return f"{self._path.as_uri()}#sha256={self._sha256}{folder}"

    def fetch(self, scratch: Path, progress: Progress) -> Path:
        """Return the folder itself, or `scratch` with the archive unpacked in it.

        `PermissionDenied` if it lies outside the roots, `UserError` if it is not there, or not fit.
        """
        path, top = self._allowed()
        try:
            inside = os.fsencode(path.relative_to(top))
            descriptor = self._open(os.fsencode(top), inside)
        except OSError as error:
            raise self._unfit(error) from None
        # What was checked is what is read: by its descriptor, whatever the path means by then.
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) and not self._sha256:
            return meant(
                OpenFolder.of(path, descriptor), self._folder, str(self._path), unpacked=False
            )
        try:
            self._unpack(Path(f"/dev/fd/{descriptor}"), scratch, progress)
        finally:
            os.close(descriptor)
        return meant(scratch, self._folder, str(self._path), unpacked=True)

    def _open(self, top: bytes, inside: bytes) -> int:
        """Open a folder or a regular file, name by name from the root; `OSError` if it is neither,
        or if a name on the way has become a link.
        """
        root = open_folder(top)
        try:
            try:
                return open_folder_below(root, inside)
            except NotADirectoryError:
                with open_below(root, inside) as file:
                    return os.dup(file.fileno())
        finally:
            os.close(root)

    def _unfit(self, error: OSError) -> Exception:
        if isinstance(error, PermissionError):
            return PermissionDenied(
                f"{machine().capitalize()} may not read {self._path}",
                f"let the user with the id {os.geteuid()} read it",
            )
        if error.errno == errno.ELOOP:
            return PermissionDenied(
                f"{self._path} has become a link while it was opened, and is not followed",
                "build when nothing writes there any more",
            )
        if not isinstance(error, FileNotFoundError):
            return error
        return UserError(
            f"There is no folder and no archive at {self._path} on {machine()}",
            f"the path has to exist on {machine()}: use a volume that both have",
        )

    def _unpack(self, opened: Path, scratch: Path, progress: Progress) -> None:
        from imagemill.sources import archive  # brings what reads all kinds of them

        if not opened.is_file():
            raise self._unfit(FileNotFoundError())
        scratch.mkdir(exist_ok=True)
        if self._sha256:
            with opened.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != self._sha256:
                raise UserError(
                    f"The archive {self._path} has the SHA-256 {found}, where {self._sha256} is given",
                    "see which of the two is right, and give the archive or the digest that is meant",
                )
        limits = archive.Limits(size=self._max_bytes, members=self._max_files)
        archive.unpack(opened, scratch, progress, limits, str(self._path))

    def _allowed(self) -> tuple[Path, Path]:
        """Return the path with its links followed, and the root that it is below."""
        path = Path(os.path.realpath(self._path))
        roots = (Path(os.path.realpath(root)) for root in self._roots)
        top = next((root for root in roots if path.is_relative_to(root)), None)
        if top is None:
            allowed = ", ".join(map(str, self._roots)) or "none"
            raise PermissionDenied(
                f"{machine().capitalize()} may not read sources at {self._path}; folders that it may: {allowed}",
                "put the source below one of them, or have the operator add its folder to IMAGEMILL_SOURCE_ROOTS",
            )
        if self._check_place:  # a link may lead elsewhere than when the policy was asked
            self._check_place(str(path))
        return path, top


def _path(text: str) -> tuple[Path, str, str]:
    """Return the path, the digest that the archive there is to have, and the folder in it that is
    meant; empty if none is given.
    """
    given: dict[str, str] = {}
    if "://" in text or (_FRAGMENT.search(text) and not Path(text).exists()):
        text, _, fragment = text.partition("#")
        given = dict(part.partition("=")[::2] for part in fragment.split("&") if part)
        sha256 = given.get("sha256", "0" * 64).lower()
        if given.keys() - {"sha256", "subdirectory"} or not _SHA256.fullmatch(sha256):
            raise UserError(
                f"{fragment!r} is no option of an archive on {machine()}",
                "write #sha256= and 64 hex digits, or #subdirectory=FOLDER",
            )
    if "://" in text:
        text = _of_uri(text)
    path = Path(text)
    if not path.is_absolute():
        raise UserError(
            f"The source {text!r} is a relative path",
            "give an absolute one: workers run in other folders",
        )
    folder = unquote(given.get("subdirectory", "")).strip("/")
    if ".." in folder.split("/"):
        raise UserError(f"{folder!r} leads out of the source", "name a folder in it")
    return path, given.get("sha256", "").lower(), folder


def _of_uri(text: str) -> str:
    try:
        uri = urlsplit(text)
    except ValueError:
        raise UserError(f"{text!r} is no URI of a file", "write file:///PATH") from None
    if uri.netloc not in ("", "localhost"):
        raise UserError(
            f"{text!r} is on another host",
            f"write file:///PATH, and have the path on {machine()}",
        )
    return unquote(uri.path)
