"""Sources: where the code that is built comes from.

The scheme of a source says which adapter reads it; a source without one is a path. To add one, write a module and
add a line here.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from imagemill.adapters import Adapter, load
from imagemill.ports import Source

SOURCES: Mapping[str, Adapter] = MappingProxyType(
    {
        "file": Adapter("imagemill.sources.local", "LocalSource"),
        "docker-image": Adapter("imagemill.sources.image", "ImageSource"),
    }
)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_source(text: str, *, roots: tuple[Path, ...]) -> Source:
    """The source that `text` names: an absolute path or `file://` URI of a folder or an archive, or
    `docker-image://REFERENCE`.

    Nothing is read yet. Local sources will be read below the folders `roots` only. `UserError` if the scheme is not
    known, or what follows is not right for it.
    """
    scheme = _SCHEME.match(text)
    adapter = load(SOURCES, scheme[1].lower() if scheme else "file", "kind of source")
    source: Source = adapter(text, roots)
    return source
