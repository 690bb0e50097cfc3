"""What all stores share: the names of objects, and how often a part of one is sent."""

import re

UPLOAD_TRIES = 6
"""How often a request of an upload is sent before the upload gives up
(docs/adr/0011-one-layer-retries.md).
"""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def checked(name: str) -> str:
    """The name; `ValueError` if no object can have it. It has neither folders nor anything that a
    URI would escape.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of an object")
    return name
