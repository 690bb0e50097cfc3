"""Context stores: where packed build contexts lie between the step that packs and the step that
builds.

The scheme of a store's URI says which adapter it is for. To add one, write a module and add a line
here.
"""

import uuid
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from imagemill.adapters import Adapter, load
from imagemill.errors import OperatorError
from imagemill.ports import ContextStore

STORES: Mapping[str, Adapter] = MappingProxyType(
    {
        "file": Adapter("imagemill.objects.file", "FileStore"),
        "gs": Adapter("imagemill.objects.gcs", "GcsStore", "gcp"),
        "https": Adapter("imagemill.objects.azure", "AzureBlobStore", "azure"),
        "s3": Adapter("imagemill.objects.s3", "S3Store", "aws"),
    }
)


def store_for(uri: str, *, region: str | None = None) -> ContextStore:
    """The context store at `uri`; `UserError` if its scheme is not known, or the URI not right for
    it.

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
