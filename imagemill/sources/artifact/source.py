"""A code artifact: an archive behind a URL or in a bucket, or all objects below a prefix of a
bucket.
"""

import hashlib
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from imagemill.addresses import Resolve, system_addresses
from imagemill.errors import UserError
from imagemill.files.tree import Tree, UnsafePathError, room, write_all
from imagemill.objects import bucket_of
from imagemill.objects.bucket import (
    Bucket,
    ChangedError,
    MissingError,
    StoredObject,
)
from imagemill.place import machine
from imagemill.ports import Progress
from imagemill.reference import ImageReference
from imagemill.sources import archive
from imagemill.sources.artifact.download import Download
from imagemill.sources.artifact.url import ArtifactUrl, parse
from imagemill.sources.options import SourceOptions
from imagemill.sources.top import meant

_PARALLEL = 8
"""Small objects of a folder that are read at the same time."""

_SMALL = 1 << 20
"""Bytes up to which an object is small: so many are kept in memory for each."""

_TICK = 0.5
"""Seconds after which the step is asked again whether to go on."""

_PAGE = (b"<!doctype html", b"<html")


class ArtifactSource:
    """An artifact, in the spelling of `imagemill.sources.artifact.source.url`.

    `resolve` is for those who have other names for servers than the worker's system.
    """

    image: ImageReference | None = None

    def __init__(
        self, text: str, options: SourceOptions, *, resolve: Resolve = system_addresses
    ) -> None:
        self.url: ArtifactUrl = parse(text)
        self._options = options
        self._resolve = resolve

    @property
    def place(self) -> str:
        return self.url.location

    def pinned(self, progress: Progress) -> str | None:
        """Return the canonical text, with what says which content is meant; None for what may
        change unseen.

        An object in a bucket is asked for its version, once; a server's word alone pins nothing,
        nor is there any for a folder of objects.
        """
        url = self.url
        if url.sha256 or url.version:
            return str(url)
        if not url.bucket or url.is_folder:
            return None
        with _told(url):
            return str(url.at(_bucket(url).version(url.path)))

    def fetch(self, scratch: Path, progress: Progress) -> Path:
        """Return the files, in a folder of their own below `scratch`.

        `UserError` also if it has not the SHA-256 or the version that it should have, if it takes
        more than the worker allows, or is not safe to unpack.
        """
        scratch.mkdir(exist_ok=True)
        tree = Path(tempfile.mkdtemp(prefix="source-", dir=scratch))
        with room(scratch):
            if self.url.is_folder:
                _Folder(self.url, self._options, progress).copy(tree)
            else:
                self._unpack(tree, progress)
        unpacked = not self.url.is_folder
        return meant(tree, self.url.subdirectory, self.url.location, unpacked=unpacked)

    def _unpack(self, tree: Path, progress: Progress) -> None:
        limits = archive.Limits(size=self._options.max_bytes, members=self._options.max_files)
        with tempfile.TemporaryDirectory(prefix="archive-", dir=tree.parent) as folder:
            path = Path(folder, "archive")
            with path.open("w+b") as file:
                self._download(file, progress)
            archive.unpack(path, tree, progress, limits, self.url.location)

    def _download(self, file: BinaryIO, progress: Progress) -> None:
        """Fill the file, and see that it is what was meant."""
        budget, sha256 = _Budget(self.url, self._options.max_bytes, progress), hashlib.sha256()

        def write(chunk: bytes) -> None:
            budget.take(len(chunk))
            sha256.update(chunk)
            file.write(chunk)

        if self.url.bucket:
            with _told(self.url):
                _bucket(self.url).read(self.url.path, self.url.version, write)
        else:
            Download(self._options, self._resolve).write(self.url, write, progress)
        file.seek(0)
        _check(self.url, file.read(512), sha256.hexdigest())


class _Budget:
    """How many bytes may still come of an artifact."""

    def __init__(self, url: ArtifactUrl, most: int, progress: Progress) -> None:
        self._url, self._most, self._progress = url, most, progress
        self._taken = 0

    def take(self, size: int) -> None:
        """Count so many bytes, and ask whether to go on; `UserError` if they are too many."""
        self._progress.check()
        self._taken += size
        if self._taken > self._most:
            raise UserError(
                f"{self._url.location} has more than {self._most:,} bytes",
                "leave out what the build does not need, or have the operator raise IMAGEMILL_SOURCE_MAX_BYTES",
            )


class _Folder:
    """All objects below a prefix, as files; they have no executable bits, since objects have
    none.
    """

    def __init__(self, url: ArtifactUrl, options: SourceOptions, progress: Progress) -> None:
        self._url, self._progress, self._max_files = url, progress, options.max_files
        self._budget = _Budget(url, options.max_bytes, progress)
        self._bucket = _bucket(url)

    def copy(self, folder: Path) -> None:
        """Fill the empty folder."""
        objects = self._listed()
        pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="artifact")
        try:
            with Tree(folder) as tree, _told(self._url):
                for stored, content in _ahead(self._bucket, objects, pool):
                    self._progress.check()
                    with self._safe(stored):
                        self._put(tree, stored, content)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _listed(self) -> list[StoredObject]:
        objects = []
        with _told(self._url):
            for stored in self._bucket.list(self._url.path):
                self._progress.check()
                objects.append(stored)
                if len(objects) > self._max_files:
                    raise UserError(
                        f"{self._url.location} has more than {self._max_files:,} objects",
                        "name a folder in it, or have the operator raise IMAGEMILL_SOURCE_MAX_FILES",
                    )
        if not objects:
            raise UserError(
                f"There are no objects below {self._url.location}", "check its spelling"
            )
        return objects

    def _put(self, tree: Tree, stored: StoredObject, content: "Future[bytes] | None") -> None:
        path = self._path(stored)
        if stored.is_folder:
            tree.folder(path)
            return
        descriptor = tree.begin(path)

        def write(chunk: bytes) -> None:
            self._budget.take(len(chunk))
            write_all(descriptor, chunk)

        try:
            if content is None:
                self._bucket.read(stored.key, stored.version, write)
            else:
                while not wait([content], _TICK).done:
                    self._progress.check()
                write(content.result())
        finally:
            tree.end(descriptor, executable=False)

    def _path(self, stored: StoredObject) -> bytes:
        """Return the file's path in the folder; keys may be any text."""
        path = stored.key[len(self._url.path) :]
        names = (path.removesuffix("/") if stored.is_folder else path).split("/")
        if {"", ".", ".."} & set(names) and not (stored.is_folder and not path):
            raise UnsafePathError("it is no path of a file below the prefix")
        return path.encode()

    @contextmanager
    def _safe(self, stored: StoredObject) -> Iterator[None]:
        try:
            yield
        except UnsafePathError as error:
            raise UserError(
                f"The object {stored.key!r} in {self._url.location} cannot be a file: {error}",
                "give the object another name, or pack the folder into an archive",
            ) from None


def _ahead(
    bucket: Bucket, objects: Sequence[StoredObject], pool: ThreadPoolExecutor
) -> "Iterator[tuple[StoredObject, Future[bytes] | None]]":
    """Yield the objects, and the content of the small ones: a few of those are read before their
    turn.
    """
    waiting: deque[tuple[StoredObject, Future[bytes] | None]] = deque()
    for stored in objects:
        small = stored.size <= _SMALL and not stored.is_folder
        waiting.append((stored, pool.submit(_content, bucket, stored) if small else None))
        if len(waiting) > _PARALLEL:
            yield waiting.popleft()
    yield from waiting


def _bucket(url: ArtifactUrl) -> Bucket:
    return bucket_of(url.kind, url.bucket, url.host)


def _content(bucket: Bucket, stored: StoredObject) -> bytes:
    buffer = BytesIO()
    bucket.read(stored.key, stored.version, buffer.write)
    return buffer.getvalue()


@contextmanager
def _told(url: ArtifactUrl) -> Iterator[None]:
    """Tell what has become of an object to whoever asked for it."""
    try:
        yield
    except MissingError as error:
        raise UserError(
            f"There is no {url.location}, as far as {machine()} may see: {error}",
            f"check its spelling, and that {machine()}'s identity may read it",
        ) from None
    except ChangedError:
        where = url.location
        if url.version:
            raise UserError(
                f"{where} has changed since it was {url.version}, or was removed",
                "leave the version out to build what is there now",
            ) from None
        raise UserError(
            f"{where} was changed while it was read", "build again once it is at rest"
        ) from None


def _check(url: ArtifactUrl, start: bytes, sha256: str) -> None:
    """`UserError` if an archive is a web page, or not the one that was meant."""
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE):
        raise UserError(
            f"At {url.location} is a web page, such as one to sign in, and no archive",
            "name the archive itself; for a git repository write git+ before https; if it is private, have the"
            f" operator give {machine()} credentials for its host",
        )
    if url.sha256 and sha256 != url.sha256:
        raise UserError(
            f"The archive {url.location} has the SHA-256 {sha256}, and not {url.sha256}",
            "see who has changed it, or mend the sha256 in the source",
        )
