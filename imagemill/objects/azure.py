"""Containers of Azure Blob storage: for packed contexts, and as sources.

An object is sent in blocks while it is written, each with its MD5, which Azure checks as the block
arrives; a list of the blocks then makes them a blob, at once and whole, with the MD5 of all its
content. The SDK's own upload of a stream would want that MD5 before it reads the first byte. Azure
drops blocks that come into no list after a week:
https://learn.microsoft.com/rest/api/storageservices/put-block.
"""

import base64
import hashlib
import io
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote, unquote, urlsplit

from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.core.pipeline import PipelineResponse
from azure.storage.blob import (
    BlobBlock,
    BlobClient,
    BlobServiceClient,
    ContainerClient,
    ContentSettings,
    ExponentialRetry,
    StorageStreamDownloader,
    generate_blob_sas,
)

from imagemill.clouds.azure import CredentialChain, credentials, error_code, translated
from imagemill.clouds.hosts import AZURE_BLOB
from imagemill.errors import TransientError, UserError
from imagemill.objects.bucket import ChangedError, MissingError, StoredObject
from imagemill.objects.names import SIGNED_AT_MOST, UPLOAD_TRIES, checked
from imagemill.per_process import per_process
from imagemill.ports import SignedUrl
from imagemill.retry_after import retry_after_seconds

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

BLOCK = 8 << 20
"""Bytes of a block. A blob has 50,000 blocks at most, so objects can have 390 GiB."""

PARALLEL = 4
"""Blocks that are on their way at the same time. `BLOCK * (PARALLEL + 2)` is the memory that an
upload takes.
"""

READ, WRITE, DELETE = (
    f"Microsoft.Storage/storageAccounts/blobServices/containers/blobs/{action}"
    for action in ("read", "write", "delete")
)
"""The data actions that a store needs, as roles name them."""

DELEGATE = "Microsoft.Storage/storageAccounts/blobServices/generateUserDelegationKey/action"
"""The action by which URLs are signed: granted on the account, since the key is the account's."""

_SKEW = timedelta(minutes=5)
"""How long before now a signature counts, for servers whose clocks are behind."""

_URI = re.compile(
    rf"(?P<account>https://{AZURE_BLOB.pattern})"
    r"/(?P<container>[a-z0-9](?:-?[a-z0-9]){2,62})(?:/(?P<prefix>[^?#]*))?"
)


class AzureContainer:
    """A container, read with the worker's identity: that of the default credential chain."""

    def __init__(self, name: str, account: str) -> None:
        self._account, self._container = f"https://{account}", name

    def version(self, key: str) -> str:
        """See `Bucket.version`."""
        with self._asked(key):
            etag: str = self._client().get_blob_client(key).get_blob_properties().etag
        return etag.strip('"')

    def read(self, key: str, version: str, write: Callable[[bytes], object]) -> None:
        """See `Bucket.read`. The SDK has each piece be of the version of the first."""
        condition: dict[str, Any] = (
            {"etag": f'"{version}"', "match_condition": MatchConditions.IfNotModified}
            if version
            else {}
        )
        with self._asked(key):
            blob = self._client().get_blob_client(key)
            for chunk in blob.download_blob(
                max_concurrency=1, decompress=False, **condition
            ).chunks():
                write(chunk)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """See `Bucket.list`."""
        with self._asked(""):
            for blob in self._client().list_blobs(name_starts_with=prefix, include=["metadata"]):
                # Accounts with a hierarchical namespace list their folders too, as empty blobs with
                # a mark.
                marked = (blob.metadata or {}).get("hdi_isfolder", "").lower() == "true"
                is_folder = marked or (blob.name.endswith("/") and not blob.size)
                yield StoredObject(blob.name, blob.size, (blob.etag or "").strip('"'), is_folder)

    def _client(self) -> ContainerClient:
        return _client(self._account, self._container, credentials())

    @contextmanager
    def _asked(self, key: str) -> Iterator[None]:
        with translated(READ, f"{self._account}/{self._container}{'/' if key else ''}{key}"):
            try:
                yield
            except ResourceNotFoundError as error:
                raise MissingError(error.message.partition("\n")[0]) from None
            except ResourceModifiedError:
                raise ChangedError from None


class AzureBlobStore:
    """A context store in a container, which must be there.

    The worker's identity is that of the default credential chain; `credential` is for those who
    have another one.
    """

    def __init__(
        self,
        uri: str,
        region: str | None = None,
        *,
        credential: AzureNamedKeyCredential | None = None,
    ) -> None:
        parts = _URI.fullmatch(uri)
        if parts is None:
            raise UserError(
                f"{_shown(uri)!r} is not the URI of a container",
                "write https://ACCOUNT.blob.core.windows.net/CONTAINER[/PREFIX]",
            )
        self._account, self._container = parts["account"], parts["container"]
        prefix = unquote(parts["prefix"] or "").strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._credential = credential

    @property
    def container(self) -> str:
        """The container's URL."""
        return f"{self._account}/{self._container}"

    def uri(self, name: str) -> str:
        """Where the object is, or would be: `https://…`."""
        return f"{self.container}/{quote(self._path(name))}"

    def exists(self, name: str) -> bool:
        """Whether the object is there, whole: with the MD5 that is stored along with all of its
        content.
        """
        blob = self._blob(name)
        with translated(READ, self.container):
            try:
                return blob.get_blob_properties().content_settings.content_md5 is not None
            except ResourceNotFoundError as error:
                _only_the_blob(error)
                return False

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Open a stream to write the object to; it is there once the block has ended, and not if
        the block raises.
        """
        blob = self._blob(name)
        pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="azure-blob")
        blocks = _Blocks(blob, self.container, pool)
        try:
            with blocks:
                stream = io.BufferedWriter(blocks, BLOCK)
                yield cast(BinaryIO, stream)
                stream.flush()
                blocks.finish()
            self._commit(name, blob, blocks)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a stream to read the object from; `FileNotFoundError` if it is not there, or is not
        whole.

        `TransientError` if what was read is not what was stored.
        """
        blob = self._blob(name)
        with translated(READ, self.container):
            try:
                download = blob.download_blob(max_concurrency=1)
            except ResourceNotFoundError as error:
                _only_the_blob(error)
                raise FileNotFoundError(f"{self.uri(name)} is not there") from None
        md5 = download.properties.content_settings.content_md5
        if md5 is None:
            raise FileNotFoundError(
                f"{self.uri(name)} has no MD5, so that it cannot be told whether it is whole"
            )
        with io.BufferedReader(
            _Content(download, _base64(md5), self.container, self.uri(name))
        ) as stream:
            yield cast(BinaryIO, stream)

    def delete(self, name: str) -> None:
        """Remove the object, with its snapshots; no error if it is not there."""
        blob = self._blob(name)
        with translated(DELETE, self.container):
            try:
                blob.delete_blob(delete_snapshots="include")
            except ResourceNotFoundError as error:
                _only_the_blob(error)

    def signed(self, name: str, seconds: float) -> SignedUrl:
        """See `ContextStore.signed`: a SAS by a user delegation key, or by the account's key where
        that is the credential. https://learn.microsoft.com/rest/api/storageservices/create-user-delegation-sas.
        """
        path, now = self._path(name), datetime.now(UTC)
        start, expiry = now - _SKEW, now + timedelta(seconds=int(min(seconds, SIGNED_AT_MOST)))
        account = f"{urlsplit(self._account).netloc.partition('.')[0]}"
        if isinstance(self._credential, AzureNamedKeyCredential):
            key: dict[str, Any] = {"account_key": self._credential.named_key.key}
        else:
            with translated(DELEGATE, self._account):
                service = BlobServiceClient(self._account, credentials(), retry_total=0)
                with service:
                    key = {"user_delegation_key": service.get_user_delegation_key(start, expiry)}
        sas = generate_blob_sas(
            account, self._container, path, permission="r", start=start, expiry=expiry, **key
        )
        return SignedUrl(f"{self.uri(name)}?{sas}", expiry.timestamp())

    def _path(self, name: str) -> str:
        return f"{self._prefix}{checked(name)}"

    def _blob(self, name: str) -> BlobClient:
        path = self._path(name)
        credential = self._credential or credentials()
        return _client(self._account, self._container, credential).get_blob_client(path)

    def _commit(self, name: str, blob: BlobClient, blocks: "_Blocks") -> None:
        """Make a blob of the blocks.

        Azure drops all other blocks of a blob when a list is committed. If ours are gone, somebody
        else has stored the object since: that is as if ours had been stored just before.
        """
        content = ContentSettings(
            content_type="application/octet-stream", content_md5=bytearray(blocks.md5)
        )
        with translated(WRITE, self.container, retried=True):
            try:
                blob.commit_block_list(blocks.sent, content_settings=content, **_TRIES)
                return
            except HttpResponseError as error:
                if error_code(error) != "InvalidBlockList":
                    raise
        if not self.exists(name):
            raise TransientError(f"{self.uri(name)} was deleted while it was sent", "send it again")


_LONGEST_WAIT = 60.0
"""Seconds between two tries at most, whatever a server asks for."""

# The waits between are 3, 5, 9, 17 and 33 seconds, each up to a second more or less.
_TRIES: dict[str, Any] = dict.fromkeys(
    ("retry_total", "retry_connect", "retry_read", "retry_status"), UPLOAD_TRIES - 1
)


@per_process(8)
def _client(
    account: str, container: str, credential: AzureNamedKeyCredential | CredentialChain
) -> ContainerClient:
    return ContainerClient(
        account,
        container,
        credential,
        retry_policy=_Retry(
            initial_backoff=1, increment_base=2, retry_total=0, random_jitter_range=1
        ),
        raw_response_hook=_refuse_limited,
        max_single_get_size=BLOCK,
        max_chunk_get_size=BLOCK,
    )


def _refuse_limited(response: PipelineResponse[Any, Any]) -> None:
    """Make an error of a 429, which the SDK takes for a final answer, so that within an upload it
    is sent again.
    """
    if response.http_response.status_code == 429:
        raise HttpResponseError(response=response.http_response)


class _Retry(ExponentialRetry):
    """The SDK's own, which in addition waits as long as it is asked to (Retry-After), within
    reason.
    """

    def increment(
        self,
        settings: dict[str, Any],
        request: Any,
        response: Any = None,
        error: AzureError | None = None,
    ) -> bool:
        answer = response or getattr(error, "response", None)
        settings["wished"] = (
            answer and retry_after_seconds(answer.headers.get("Retry-After"))
        ) or 0.0
        return super().increment(settings, request, response, error)

    def get_backoff_time(self, settings: dict[str, Any]) -> float:
        wished: float = settings["wished"]
        return max(super().get_backoff_time(settings), min(wished, _LONGEST_WAIT))


def _shown(uri: str) -> str:
    """Return a URI without what may be secret in it: a user's password, and a query with a
    signature.
    """
    scheme, separator, rest = uri.partition("?")[0].rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _only_the_blob(error: ResourceNotFoundError) -> None:
    """Raise the error again if it is not the blob alone that is missing."""
    if error_code(error) != "BlobNotFound":
        raise error


def _base64(md5: bytearray | str) -> str:
    """Return the hash as the header has it; the SDK gives it as bytes or as that text."""
    return md5 if isinstance(md5, str) else base64.b64encode(md5).decode()


class _Blocks(io.RawIOBase):
    """Sends what is written to it in blocks, a few at a time; an error shows with a later `write`,
    or `finish`.
    """

    def __init__(self, blob: BlobClient, container: str, pool: ThreadPoolExecutor) -> None:
        self._blob, self._container, self._pool = blob, container, pool
        self._sending: deque[Future[None]] = deque()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.sent: list[BlobBlock] = []

    @property
    def md5(self) -> bytes:
        """The MD5 of all that was written."""
        return self._md5.digest()

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        content = bytes(memoryview(data)[:BLOCK])
        self._md5.update(content)
        while len(self._sending) >= PARALLEL:
            self._sending.popleft().result()
        block = BlobBlock(uuid.uuid4().hex)
        self.sent.append(block)
        self._sending.append(self._pool.submit(self._send, block.id, content))
        return len(content)

    def finish(self) -> None:
        """Wait until all blocks have arrived."""
        while self._sending:
            self._sending.popleft().result()

    def _send(self, identifier: str, content: bytes) -> None:
        with translated(WRITE, self._container, retried=True):
            self._blob.stage_block(
                identifier, content, len(content), validate_content="md5", **_TRIES
            )


class _Content(io.RawIOBase):
    """Reads an object; gives its last bytes only if its MD5 is the one that is stored along with
    it.
    """

    def __init__(
        self, download: StorageStreamDownloader[bytes], md5: str, container: str, uri: str
    ) -> None:
        self._download, self._expected, self._container, self._uri = download, md5, container, uri
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._left = download.size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        with translated(READ, self._container):
            try:
                content = self._download.read(len(view))
            except ResourceModifiedError:
                raise TransientError(
                    f"{self._uri} was replaced while it was read", "read it again"
                ) from None
        self._md5.update(content)
        self._left -= len(content)
        at_end = self._left == 0 or not content
        if at_end and _base64(bytearray(self._md5.digest())) != self._expected:
            raise TransientError(
                f"What was read of {self._uri} is not what was stored", "check the network to it"
            )
        view[: len(content)] = content
        return len(content)
