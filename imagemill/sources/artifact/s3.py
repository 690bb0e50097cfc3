"""Objects in a bucket of S3, or of a service that speaks its protocol, as sources."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import botocore.exceptions as sdk

from imagemill.clouds import aws
from imagemill.clouds.hosts import partition_of
from imagemill.sources.artifact.bucket import CHUNK, ChangedError, MissingError, StoredObject
from imagemill.sources.artifact.url import ArtifactUrl

_MISSING = frozenset({"404", "NoSuchBucket", "NoSuchKey", "NotFound"})
_CHANGED = frozenset({"412", "PreconditionFailed"})


class S3Bucket:
    """A bucket in whichever region: the SDK is sent on to it by S3."""

    def __init__(self, url: ArtifactUrl) -> None:
        self._bucket = url.bucket

    def version(self, key: str) -> str:
        """See `Bucket.version`; needs `s3:GetObject`."""
        with self._asked("s3:GetObject", key):
            etag: str = aws.s3_client(None).head_object(Bucket=self._bucket, Key=key)["ETag"]
        return etag.strip('"')

    def read(self, key: str, version: str, write: Callable[[bytes], object]) -> None:
        """See `Bucket.read`; needs `s3:GetObject`. S3's own checksum is compared at the end, where
        there is one.
        """
        condition = {"IfMatch": f'"{version}"'} if version else {}
        with self._asked("s3:GetObject", key):
            body = aws.s3_client(None).get_object(Bucket=self._bucket, Key=key, **condition)["Body"]
            with body:
                for chunk in body.iter_chunks(CHUNK):
                    write(chunk)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """See `Bucket.list`; needs `s3:ListBucket`."""
        with self._asked("s3:ListBucket", ""):
            pages = (
                aws.s3_client(None)
                .get_paginator("list_objects_v2")
                .paginate(Bucket=self._bucket, Prefix=prefix)
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    key, size = entry["Key"], entry["Size"]
                    yield StoredObject(
                        key, size, entry["ETag"].strip('"'), key.endswith("/") and not size
                    )

    @contextmanager
    def _asked(self, action: str, key: str) -> Iterator[None]:
        partition = partition_of(aws.s3_client(None).meta.region_name).name
        resource = f"arn:{partition}:s3:::{self._bucket}{'/' if key else ''}{key}"
        with aws.translated(action, resource):
            try:
                yield
            except sdk.ClientError as error:
                details = error.response["Error"]
                if details.get("Code") in _MISSING:
                    raise MissingError(details.get("Message") or "Not Found") from None
                if details.get("Code") in _CHANGED:
                    raise ChangedError from None
                raise
