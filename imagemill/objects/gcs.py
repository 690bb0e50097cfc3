"""Buckets of Google Cloud Storage: for packed contexts, and as sources.

An object is sent as a resumable upload, piece by piece, and is there only after the last one,
whole. Its CRC32C goes along and is checked by Google, and again when the object is read. What is
asked, and how it is answered: https://cloud.google.com/storage/docs/resumable-uploads and
https://cloud.google.com/storage/docs/json_api/v1/objects.
"""

# Most of Google's packages have no types.
# mypy: disable-error-code="import-untyped,no-untyped-call"

import errno
import io
import os
import re
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

import google_crc32c
from google.api_core.exceptions import Forbidden, NotFound, from_http_response
from google.api_core.retry import exponential_sleep_generator, retry_target
from google.cloud.storage import Blob
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.fileio import BlobWriter
from requests import Response

from imagemill.clouds.gcp import (
    KNOWN,
    TIMEOUT,
    client,
    failure,
    may_try_again,
    signer,
    signing,
    translated,
)
from imagemill.errors import OperatorError, TransientError, UserError
from imagemill.objects.bucket import ChangedError, MissingError, StoredObject
from imagemill.objects.names import SIGNED_AT_MOST, UPLOAD_TRIES, checked
from imagemill.place import machine
from imagemill.ports import SignedUrl

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

UPLOAD_WAITS = (1.0, 60.0)
"""Seconds between two tries: about the first one, then twice as many each time, up to the
second.
"""

PIECE = 24 << 20
"""Bytes of a piece; there are two in memory at a time. From 32 MiB on the C library returns the
memory of each to the kernel, and to get it anew takes longer than to send a piece to this machine
itself."""

_BLOCK = 1 << 20
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_CREATE, _GET, _DELETE = "storage.objects.create", "storage.objects.get", "storage.objects.delete"

T = TypeVar("T")


_ASKED: dict[str, Any] = {"retry": None, "timeout": TIMEOUT}


class GcsBucket:
    """A bucket, by its name, which is one in all of Google Cloud."""

    def __init__(self, name: str) -> None:
        self._bucket = name

    def version(self, key: str) -> str:
        """See `Bucket.version`; needs `storage.objects.get`."""
        blob = self._blob(key)
        with self._asked("storage.objects.get", key):
            blob.reload(**_ASKED)
        return str(blob.generation)

    def read(self, key: str, version: str, write: Callable[[bytes], object]) -> None:
        """See `Bucket.read`; needs `storage.objects.get`. Google's own checksum is compared at the
        end.

        A bucket that keeps old versions still has one that was replaced.
        """
        generation = int(version) if version else None
        blob = self._blob(key, generation)
        try:
            with self._asked("storage.objects.get", key):
                blob.download_to_file(_Sink(write), raw_download=True, **_ASKED)
        except MissingError:
            if version and self.version(key) != version:
                raise ChangedError from None
            raise

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """See `Bucket.list`; needs `storage.objects.list`."""
        with self._asked("storage.objects.list", ""):
            for blob in client().list_blobs(self._bucket, prefix=prefix, **_ASKED):
                yield StoredObject(
                    blob.name,
                    blob.size,
                    str(blob.generation),
                    blob.name.endswith("/") and not blob.size,
                )

    def _blob(self, key: str, generation: int | None = None) -> Blob:
        return client().bucket(self._bucket).blob(key, generation=generation)

    @contextmanager
    def _asked(self, action: str, key: str) -> Iterator[None]:
        resource = f"projects/_/buckets/{self._bucket}{'/objects/' if key else ''}{key}"
        with translated(action, resource):
            try:
                yield
            except NotFound as error:
                raise MissingError(error.message) from None
            except Forbidden as error:
                # Whoever may read objects but not list them is told of a missing one that he may
                # not list them.
                if action == "storage.objects.list" or "storage.objects.list" not in str(error):
                    raise
                raise MissingError(
                    f"{machine()} may not list the bucket to see whether it is there"
                ) from None


class _Sink:
    """A function as the stream that the SDK writes to."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, chunk: bytes) -> int:
        self._write(chunk)
        return len(chunk)


class GcsStore:
    """A context store in a bucket, which has to be there; `gs://BUCKET/PREFIX` puts the objects
    below a prefix.
    """

    def __init__(self, uri: str, region: str | None = None) -> None:
        parts = urlsplit(uri)
        if (
            parts.scheme != "gs"
            or not _BUCKET.fullmatch(parts.netloc)
            or parts.query
            or parts.fragment
        ):
            raise UserError(
                f"{uri!r} is not the URI of a bucket", "write gs://BUCKET or gs://BUCKET/PREFIX"
            )
        self._bucket = parts.netloc
        self._prefix = "".join(f"{folder}/" for folder in parts.path.split("/") if folder)
        self._resource = f"projects/_/buckets/{self._bucket}"

    def uri(self, name: str) -> str:
        """Where the object is, or would be: `gs://…`."""
        return f"gs://{self._bucket}/{self._key(name)}"

    def exists(self, name: str) -> bool:
        """Whether the object is there: whole, since Google shows no others, and with its
        checksum.
        """
        blob = self._blob(name)
        self._found(lambda: blob.reload(**_ASKED))
        return bool(blob.crc32c)

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Open a stream to write the object to; it is there once the block has ended, and not if
        the block raises.

        What was damaged on its way is a `TransientError`, and is not kept.
        """
        upload = _Upload(self._blob(name), self._resource)
        try:
            yield cast(BinaryIO, upload)
            upload.close()
        finally:
            upload.abandon()

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a stream to read the object from; `FileNotFoundError` if it is not there.

        `TransientError` at its end if what was read does not have the checksum that Google has.
        """
        blob = self._blob(name)
        response = self._found(lambda: _download(blob))
        if response is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.uri(name))
        with response, io.BufferedReader(_Checked(response, self._resource), _BLOCK) as stream:
            yield stream

    def delete(self, name: str) -> None:
        """Remove the object; no error if it is not there."""
        blob = self._blob(name)
        self._found(lambda: blob.delete(**_ASKED), _DELETE)

    def signed(self, name: str, seconds: float) -> SignedUrl:
        """See `ContextStore.signed`; without a key at hand it needs `iam.serviceAccounts.signBlob`
        on the worker's own service account.
        """
        blob, seconds = self._blob(name), int(min(seconds, SIGNED_AT_MOST))
        with translated(_GET, self._resource), signing():
            url: str = blob.generate_signed_url(
                version="v4",
                expiration=seconds,
                api_access_endpoint=client().api_endpoint,
                **signer(),
            )
        return SignedUrl(url, time.time() + seconds)

    def _key(self, name: str) -> str:
        return f"{self._prefix}{checked(name)}"

    def _blob(self, name: str) -> Blob:
        key = self._key(name)
        return client().bucket(self._bucket).blob(key)

    def _found(self, ask: Callable[[], T], action: str = _GET) -> T | None:
        """Return the answer about an object; None if there is no such object. That there is no
        bucket is a `UserError`.
        """
        with translated(action, self._resource):
            try:
                return ask()
            except NotFound as error:
                if "No such object" not in str(error):
                    bucket = client().bucket(self._bucket)
                    with translated("storage.buckets.get", self._resource):
                        bucket.reload(**_ASKED)
            except Forbidden as error:
                # Whoever may read objects but not list them is told of a missing one that he may
                # not list them.
                if "storage.objects.list" not in str(error):
                    raise
        return None


class _Upload(BlobWriter):  # type: ignore[misc]
    """The SDK's writer, with tries that are counted and another way to give up."""

    def __init__(self, blob: Blob, resource: str) -> None:
        super().__init__(
            blob,
            PIECE,
            ignore_flush=True,
            retry=_tried,
            timeout=TIMEOUT,
            checksum="crc32c",
            content_type="application/gzip",
        )
        self._resource = resource
        self._buffer = _Blocks()

    def write(self, content: bytes) -> int:
        """Take the content, and send a piece when there is enough for one."""
        with translated(_CREATE, self._resource, retried=True):
            written: int = super().write(content)
        return written

    def close(self) -> None:
        """Send the last piece, which makes the object."""
        with translated(_CREATE, self._resource, retried=True):
            try:
                super().close()
            except DataCorruption as error:
                # Google refuses what has not the checksum that went along; this is for servers that
                # do not look at it.
                generation = error.response.json()["generation"]
                self._blob.delete(if_generation_match=generation, **_ASKED)
                raise

    def abandon(self) -> None:
        """Let Google forget what has been sent, unless it is an object by now."""
        self._buffer.close()  # else the collection of garbage would end the upload, and make an object of it
        if self._upload_and_transport is None:
            return
        upload, session = self._upload_and_transport
        if not upload.finished:
            # The error that led here counts; Google forgets by itself after a week. The SDK's own
            # `terminate` asks at an address where there is nothing to delete.
            with suppress(*KNOWN):
                session.delete(upload.resumable_url, timeout=TIMEOUT)


class _Blocks:
    """What is written and not sent yet: a stream for the SDK, whose own one copies all of it
    twice.
    """

    def __init__(self) -> None:
        self.closed = False
        self._blocks: deque[memoryview] = deque()
        self._size = self._taken = 0

    def __len__(self) -> int:
        return self._size

    def write(self, content: bytes) -> int:
        block = memoryview(bytes(content))  # a copy only of what may change afterwards
        self._blocks.append(block)
        self._size += len(block)
        return len(block)

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, or what is there: they are given away, since the SDK keeps
        them for its tries.
        """
        taken, left = [], min(size, self._size)
        self._size -= left
        self._taken += left
        while left:
            block = self._blocks.popleft()
            if len(block) > left:
                self._blocks.appendleft(block[left:])
            taken.append(block[:left])
            left -= len(taken[-1])
        return b"".join(taken)

    def tell(self) -> int:
        return self._taken

    def flush(self) -> None:
        """Nothing that was read is kept."""

    def close(self) -> None:
        self._blocks.clear()
        self.closed = True


class _Checked(io.RawIOBase):
    """The bytes of a download, whose checksum is compared at their end."""

    def __init__(self, response: Response, resource: str) -> None:
        hashes = dict(
            entry.strip().partition("=")[::2]
            for entry in response.headers.get("x-goog-hash", "").split(",")
        )
        if "crc32c" not in hashes:
            raise OperatorError(
                f"Google Cloud gives no checksum of an object in {resource}", "delete the object"
            )
        self._raw, self._resource = response.raw, resource
        self._expected, self._found = hashes["crc32c"], google_crc32c.Checksum()
        self._left = int(response.headers["Content-Length"])
        self._check()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        with translated(_GET, self._resource), memoryview(buffer) as view:
            content = self._raw.read(len(view))
            view[: len(content)] = content
        self._found.update(content)
        self._left -= len(content)
        self._check()
        return len(content)

    def _check(self) -> None:
        """As soon as all is there: who reads an archive need not ask for more after its end."""
        if self._left == 0 and b64encode(self._found.digest()).decode() != self._expected:
            raise TransientError(
                f"An object in {self._resource} was damaged on its way", "it is read again"
            )


def _download(blob: Blob) -> Response:
    """Return the answer with the object as its body: one version of it, whatever is stored
    meanwhile.
    """
    url = f"{client().api_endpoint}/download/storage/v1{blob.path}"
    headers = {"Accept-Encoding": "identity"}
    response: Response = client().session.get(
        url, params={"alt": "media"}, headers=headers, stream=True, timeout=TIMEOUT
    )
    if response.status_code != 200:
        with response:
            raise from_http_response(response)
    return response


def _tried(request: Callable[[], T]) -> Callable[[], T]:
    """Return the request, sent again while that may help: the SDK's own retry counts seconds, not
    tries.
    """
    tries = _Tries()
    return lambda: retry_target(request, tries.again, tries.waits(), timeout=None)


class _Tries:
    """What is left of the tries of one request."""

    def __init__(self) -> None:
        self._left = UPLOAD_TRIES
        self._wished = 0.0

    def again(self, error: Exception) -> bool:
        """Whether to send it again after this error."""
        self._left -= 1
        told = failure(error, _CREATE, "")
        self._wished = (isinstance(told, TransientError) and told.retry_after) or 0.0
        return self._left > 0 and may_try_again(error)

    def waits(self) -> Iterator[float]:
        """Seconds before each try: at least what the server asked for (Retry-After), within
        reason.
        """
        first, most = UPLOAD_WAITS
        for wait in exponential_sleep_generator(first, most):
            yield max(wait, min(self._wished, most))
