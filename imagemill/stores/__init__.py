"""Context stores: where packed build contexts lie between the step that packs and the step that builds.

The scheme of a store's URI says which adapter it is for. To add one, write a module and add a line here.
"""

from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from imagemill.adapters import Adapter, load
from imagemill.ports import ContextStore

STORES: Mapping[str, Adapter] = MappingProxyType(
    {
        "file": Adapter("imagemill.stores.file", "FileStore"),
    }
)


def store_for(uri: str) -> ContextStore:
    """The context store at `uri`; `UserError` if its scheme is not known, or the URI not right for it."""
    store: ContextStore = load(STORES, urlsplit(uri).scheme, "context store")(uri)
    return store
