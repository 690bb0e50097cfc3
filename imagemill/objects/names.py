"""What all stores share: the names of objects, and how often a part of one is sent."""

from imagemill.grammar import OBJECT

UPLOAD_TRIES = 6
"""How often a request of an upload is sent before the upload gives up
(docs/adr/0011-one-layer-retries.md).
"""

SIGNED_AT_MOST = 7 * 24 * 60 * 60.0
"""Seconds for which a signed URL is good at most, in each of the clouds."""


def checked(name: str) -> str:
    """Return the name; `ValueError` if no object can have it. It has neither folders nor anything
    that a URI would escape.
    """
    if not OBJECT.fits(name):
        raise ValueError(f"{name!r} is not a name of an object")
    return name
