"""Objects in a bucket of Google Cloud Storage as sources."""

# Most of Google's packages have no types.
# mypy: disable-error-code="import-untyped,no-untyped-call"

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from google.api_core.exceptions import Forbidden, NotFound
from google.cloud.storage import Blob

from imagemill.clouds.gcp import TIMEOUT, client, translated
from imagemill.sources.artifact.bucket import ChangedError, MissingError, StoredObject
from imagemill.sources.artifact.url import ArtifactUrl

_ASKED: dict[str, Any] = {"retry": None, "timeout": TIMEOUT}


class GcsBucket:
    """A bucket, by its name, which is one in all of Google Cloud."""

    def __init__(self, url: ArtifactUrl) -> None:
        self._bucket = url.bucket

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
                    "the worker may not list the bucket to see whether it is there"
                ) from None


class _Sink:
    """A function as the stream that the SDK writes to."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, chunk: bytes) -> int:
        self._write(chunk)
        return len(chunk)
