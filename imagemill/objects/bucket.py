"""What a cloud's bucket is to a source: objects that are read one version at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

CHUNK = 1 << 20
"""Bytes that are read at a time, at most."""


class MissingError(Exception):
    """There is no such object or bucket, as far as the worker may see; the text is the cloud's own
    words.
    """


class ChangedError(Exception):
    """The object is not the version that was asked for any more."""


@dataclass(frozen=True)
class StoredObject:
    """One version of an object, as a list of a bucket has it."""

    key: str
    size: int
    """In bytes."""
    version: str
    """Its entity tag, without quotes, or generation."""
    is_folder: bool = False
    """Whether it stands for a folder and has no content of its own, as consoles make them."""


class Bucket(Protocol):
    """One bucket or container. `PermissionDenied` and `TransientError` may come of each call;
    threads may share it.
    """

    def version(self, key: str) -> str:
        """Return the version that the object has now; `MissingError` if there is none."""

    def read(self, key: str, version: str, write: Callable[[bytes], object]) -> None:
        """Hand the object's bytes to `write`, as they are stored: `Content-Encoding` is none of our
        business.

        `version` empty: whichever there is. `MissingError`, or `ChangedError` if it is another
        version by now.
        """

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose keys begin with the prefix; `MissingError` if there is no such
        bucket.
        """
