"""Blobs in a container of Azure Blob storage as sources."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import ContainerClient, ExponentialRetry

from imagemill.clouds.azure import CredentialChain, credentials, translated
from imagemill.sources.artifact.bucket import ChangedError, MissingError, StoredObject
from imagemill.sources.artifact.url import ArtifactUrl

PIECE = 4 << 20
"""Bytes that are asked for at a time; each is in memory while it is handed on."""

READ = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"
"""The data action that is needed, for lists too."""


class AzureContainer:
    """A container, read with the worker's identity: that of the default credential chain."""

    def __init__(self, url: ArtifactUrl) -> None:
        self._account, self._container = f"https://{url.host}", url.bucket

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
        return _client(os.getpid(), self._account, self._container, credentials())

    @contextmanager
    def _asked(self, key: str) -> Iterator[None]:
        with translated(READ, f"{self._account}/{self._container}{'/' if key else ''}{key}"):
            try:
                yield
            except ResourceNotFoundError as error:
                raise MissingError(error.message.partition("\n")[0]) from None
            except ResourceModifiedError:
                raise ChangedError from None


@lru_cache(maxsize=8)
def _client(pid: int, account: str, container: str, credential: CredentialChain) -> ContainerClient:
    """The client of the process `pid`: a forked child must not write to the connections of its
    parent.
    """
    return ContainerClient(
        account,
        container,
        credential,
        retry_policy=ExponentialRetry(retry_total=0),
        max_single_get_size=PIECE,
        max_chunk_get_size=PIECE,
    )
