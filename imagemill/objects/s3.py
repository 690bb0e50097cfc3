"""Buckets of S3, or of a service that speaks its protocol (`AWS_ENDPOINT_URL_S3`): for packed
contexts, and as sources.

What is written goes through a pipe to the SDK's own multipart upload, so memory stays bounded. The
upload ends with the CRC of all that was written, which the server compares with what it got before
it shows the object, and keeps: an object that is there and has it is whole. Whoever reads it back
has it compared again.
"""

import base64
import io
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import botocore.exceptions as sdk
from isal.isal_zlib import crc32
from s3transfer.manager import TransferConfig, TransferManager
from s3transfer.subscribers import BaseSubscriber

from imagemill.clouds import aws
from imagemill.clouds.hosts import partition_of
from imagemill.errors import UserError
from imagemill.objects.bucket import CHUNK, ChangedError, MissingError, StoredObject
from imagemill.objects.names import SIGNED_AT_MOST, UPLOAD_TRIES, checked
from imagemill.ports import SignedUrl

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")

_PART = 12 << 20
"""Bytes. S3 takes 10,000 parts, so this is up to 117 GiB in one context."""

_TRANSFER = TransferConfig(
    multipart_threshold=_PART,
    multipart_chunksize=_PART,
    max_request_concurrency=4,
    max_in_memory_upload_chunks=4,
)
_READ_BUFFER = 1 << 20


_MISSING = frozenset({"404", "NoSuchBucket", "NoSuchKey", "NotFound"})
_CHANGED = frozenset({"412", "PreconditionFailed"})


def arn(region: str | None, bucket: str, key: str = "") -> str:
    """Return the name by which policies know a bucket, or an object in it."""
    return f"arn:{partition_of(region).name}:s3:::{bucket}{'/' if key else ''}{key}"


class S3Bucket:
    """A bucket in whichever region: the SDK is sent on to it by S3."""

    def __init__(self, name: str) -> None:
        self._bucket = name

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
        region = aws.s3_client(None).meta.region_name
        with aws.translated(action, arn(region, self._bucket, key)):
            try:
                yield
            except sdk.ClientError as error:
                details = error.response["Error"]
                if details.get("Code") in _MISSING:
                    raise MissingError(details.get("Message") or "Not Found") from None
                if details.get("Code") in _CHANGED:
                    raise ChangedError from None
                raise


class S3Store:
    """A context store in a bucket, under the path of its URI; `region` None: what the SDK's
    configuration says.
    """

    def __init__(self, uri: str, region: str | None = None) -> None:
        parts = urlsplit(uri)
        if (
            parts.scheme != "s3"
            or not _BUCKET.fullmatch(parts.netloc)
            or parts.query
            or parts.fragment
        ):
            raise UserError(f"{uri!r} is not the URI of a bucket", "write s3://BUCKET/PATH")
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        self._region = region

    def uri(self, name: str) -> str:
        """Where the object is, or would be: `s3://…`."""
        return f"s3://{self._bucket}/{self._key(name)}"

    def exists(self, name: str) -> bool:
        """Whether the object is there, with its checksum; S3 shows it only once it is whole.

        The bucket is listed, since the answer to a HEAD has no words: a missing bucket would be a
        missing object.
        """
        key = self._key(name)
        with aws.translated("s3:ListBucket", self._arn()):
            client = aws.s3_client(self._region)
            found = client.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1)
        there = any(entry["Key"] == key for entry in found.get("Contents", ()))
        return there and (not _keeps_checksums(client) or self._has_checksum(client, key))

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Open a stream to write the object to; it is there once the block has ended, and not if
        the block raises.

        An upload that fails while it is written to shows itself as a failure of the block.
        """
        key = self._key(name)
        uploading = aws.translated("s3:PutObject", self._arn(key), tries=UPLOAD_TRIES)
        with aws.translated("s3:PutObject", self._arn(key)):
            client = aws.upload_client(self._region, UPLOAD_TRIES)
        with closing(client), TransferManager(client, _TRANSFER) as manager:
            upload = _Upload(manager, client, self._bucket, key)
            try:
                yield cast("BinaryIO", upload)
            except _UploadFailedError:
                with uploading:
                    upload.fail()
                raise
            except BaseException:
                upload.cancel()
                raise
            with uploading:
                upload.finish()

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a stream to read the object from; `FileNotFoundError` if it is not there.

        Its last bytes are followed by a comparison with the CRC that S3 has recorded:
        `TransientError` if they differ.
        """
        key = self._key(name)
        with aws.translated("s3:GetObject", self._arn(key)):
            try:
                body = aws.s3_client(self._region).get_object(Bucket=self._bucket, Key=key)["Body"]
            except sdk.ClientError as error:
                if error.response["Error"].get("Code") != "NoSuchKey":
                    raise
                raise FileNotFoundError(self.uri(name)) from error
        with body, io.BufferedReader(_Download(body, self._arn(key)), _READ_BUFFER) as stream:
            yield cast("BinaryIO", stream)

    def delete(self, name: str) -> None:
        """Remove the object; no error if it is not there."""
        key = self._key(name)
        with aws.translated("s3:DeleteObject", self._arn(key)):
            aws.s3_client(self._region).delete_object(Bucket=self._bucket, Key=key)

    def signed(self, name: str, seconds: float) -> SignedUrl:
        """See `ContextStore.signed`; needs `s3:GetObject`, and `s3:ListBucket` to learn the
        bucket's region, which is in the signature.
        """
        with aws.translated("s3:ListBucket", self._arn()):
            found = aws.s3_client(self._region).head_bucket(Bucket=self._bucket)
        key, seconds = self._key(name), min(seconds, SIGNED_AT_MOST)
        with aws.translated("s3:GetObject", self._arn(key)):
            client = aws.signing_client(found.get("BucketRegion") or self._region)
            seconds = aws.credentials_last(seconds)
            url: str = client.generate_presigned_url(
                "get_object", {"Bucket": self._bucket, "Key": key}, int(seconds)
            )
        return SignedUrl(url, time.time() + int(seconds))

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{checked(name)}" if self._prefix else checked(name)

    def _arn(self, key: str = "") -> str:
        return arn(self._region, self._bucket, key)

    def _has_checksum(self, client: Any, key: str) -> bool:
        """Whether the server has the CRC of the whole object, as it does of what `create` has
        stored.
        """
        with aws.translated("s3:GetObject", self._arn(key)):
            try:
                found = client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
            except sdk.ClientError as error:
                if error.response["Error"].get("Code") != "404":
                    raise
                return False  # somebody has deleted it just now
        checksum = found.get("ChecksumCRC32", "-")
        return (
            "-" not in checksum
        )  # as in one over the checksums of parts, with which nothing can be compared


def _keeps_checksums(client: Any) -> bool:
    """Whether objects have checksums: AWS_REQUEST_CHECKSUM_CALCULATION=when_required is for servers
    that know none.
    """
    return bool(client.meta.config.request_checksum_calculation == "when_supported")


class _UploadFailedError(OSError):
    """An upload has failed while it was written to; why is to be asked of it."""


class _Upload(io.RawIOBase):
    """What is written here goes through a pipe to an upload of s3transfer, which reads it in a
    thread of its own.
    """

    def __init__(self, manager: TransferManager, client: Any, bucket: str, key: str) -> None:
        keeps = _keeps_checksums(client)
        arguments = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"} if keeps else {}
        source, self._sink = os.pipe()
        reader = os.fdopen(source, "rb")
        self._crc = 0
        self._future: Any = manager.upload(reader, bucket, key, arguments, [_Closing(reader)])

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write all of it; raises if the upload has failed."""
        with memoryview(data) as view, view.cast("B") as octets:
            written = 0
            while written < len(octets):
                written += self._send(octets[written:])
            self._crc = crc32(octets, self._crc)
            return written

    def _send(self, octets: memoryview) -> int:
        if self._future.done():
            raise _UploadFailedError("the upload has failed")
        try:
            return os.write(self._sink, octets)
        except BrokenPipeError as error:
            raise _UploadFailedError("the upload has ended") from error

    def finish(self) -> None:
        """Wait until all is stored; raises what the SDK raises."""
        arguments = self._future.meta.call_args.extra_args
        if "ChecksumAlgorithm" in arguments:
            # s3transfer looks for it when the pipe has come to its end, so it may be known only
            # now.
            arguments["ChecksumCRC32"] = base64.b64encode(self._crc.to_bytes(4, "big")).decode()
        self.fail()

    def fail(self) -> None:
        """Raise why an upload has failed, once what it left is removed."""
        os.close(self._sink)
        self._future.result()

    def cancel(self) -> None:
        """Drop the upload; the manager waits until its parts are removed."""
        self._future.cancel()
        os.close(self._sink)


class _Closing(BaseSubscriber):
    """Closes the pipe at the end of an upload, so that nobody goes on writing to one that has
    failed.
    """

    def __init__(self, reader: BinaryIO) -> None:
        self._reader = reader

    def on_done(self, future: object, **_: object) -> None:
        self._reader.close()


class _Download(io.RawIOBase):
    """The body of an answer; errors within it are our own."""

    def __init__(self, body: Any, arn: str) -> None:
        self._body, self._arn = body, arn

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with aws.translated("s3:GetObject", self._arn):
            read: int = self._body.readinto(buffer)
            return read
