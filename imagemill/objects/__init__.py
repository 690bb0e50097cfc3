"""Objects in folders and in clouds' buckets: context stores, where packed build contexts lie
between the step that packs and the step that builds, and buckets that sources are read from.

A cloud is one module. To add one, write it and add a line to each table here.
"""

import uuid
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from imagemill.adapters import Adapter, load
from imagemill.errors import OperatorError
from imagemill.objects.bucket import Bucket
from imagemill.ports import ContextStore

STORES: Mapping[str, Adapter] = MappingProxyType(
    {
        "file": Adapter("imagemill.objects.file", "FileStore"),
        "gs": Adapter("imagemill.objects.gcs", "GcsStore", "gcp"),
        "https": Adapter("imagemill.objects.azure", "AzureBlobStore", "azure"),
        "s3": Adapter("imagemill.objects.s3", "S3Store", "aws"),
    }
)

"""Scheme of a store's URI → its adapter."""

BUCKETS: Mapping[str, Adapter] = MappingProxyType(
    {
        "s3": Adapter("imagemill.objects.s3", "S3Bucket", "aws"),
        "gs": Adapter("imagemill.objects.gcs", "GcsBucket", "gcp"),
        "azure": Adapter("imagemill.objects.azure", "AzureContainer", "azure"),
    }
)
"""Kind of bucket → its adapter."""


def bucket_of(kind: str, name: str, account: str = "") -> Bucket:
    """Return the bucket of this name; `OperatorError` if its cloud's packages are not installed.

    `account` is the host of Azure's storage account.
    """
    adapter = load(BUCKETS, kind, "kind of bucket")
    bucket: Bucket = adapter(name, account) if account else adapter(name)
    return bucket


def store_for(uri: str, *, region: str | None = None) -> ContextStore:
    """Return the context store at `uri`; `UserError` if its scheme is not known, or the URI not
    right for it.

    `region` is the launch config's `environment.region`; None: what the cloud's own configuration
    says.
    """
    store: ContextStore = load(STORES, urlsplit(uri).scheme, "context store")(uri, region)
    return store


def check(store: ContextStore) -> None:
    """Try with a small object what a build does to the store, and remove the object; raises what a
    build would meet.
    """
    name = f"probe-{uuid.uuid4().hex}"
    with store.create(name) as stream:
        stream.write(b"probe")
    try:
        with store.open(name) as stream:
            found = stream.read()
        if found != b"probe" or not store.exists(name):
            raise OperatorError(
                f"{store.uri(name)} is not what was stored there", "use another context store"
            )
    finally:
        store.delete(name)
