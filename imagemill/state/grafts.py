"""What images of code alone are made from, in Redis: earlier images, and what is in their layers."""

import json
from collections.abc import Sequence
from typing import NamedTuple, cast

from redis import Redis

from imagemill.names import HASH_KEEP_SECONDS
from imagemill.why.record import InputRecord


class Earlier(NamedTuple):
    """An image that a builder has made."""

    image: str
    """Pinned: repository@sha256:…"""
    labels: tuple[str, ...]
    """Names of the labels that the build has given it."""
    record: InputRecord
    """What it was made from."""
    commands: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Keyword and words of each CMD and ENTRYPOINT that may be another in the next image."""


class Grafts:
    """Key → the latest image that a builder has made of what the key names; diff id → layer.

    Each is kept for `names.HASH_KEEP_SECONDS` after it was last used.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}imagemill:graft:"

    def keep_image(self, key: str, image: Earlier) -> None:
        """Keep an image."""
        head = json.dumps([image.image, image.labels, image.commands]).encode()
        kept = head + b"\n" + image.record.dump()
        self._redis.set(f"{self._prefix}image:{key}", kept, ex=HASH_KEEP_SECONDS)

    def find_image(self, key: str) -> Earlier | None:
        """Return the image; None if there is none, or nobody has asked for it for too long."""
        found = self._redis.getex(f"{self._prefix}image:{key}", ex=HASH_KEEP_SECONDS)
        if not isinstance(found, bytes):
            return None
        head, _, record = found.partition(b"\n")
        image, labels, commands = json.loads(head)
        known = tuple((keyword, tuple(words)) for keyword, words in commands)
        return Earlier(image, tuple(labels), InputRecord.load(record), known)

    def forget_image(self, key: str) -> None:
        """Forget an image that is not there any more."""
        self._redis.delete(f"{self._prefix}image:{key}")

    def keep_layer(self, diff_id: str, layer: bytes) -> None:
        """Keep what is in a layer."""
        self._redis.set(f"{self._prefix}layer:{diff_id}", layer, ex=HASH_KEEP_SECONDS)

    def find_layers(self, diff_ids: Sequence[str]) -> list[bytes | None]:
        """Return what is in these layers; None for each that nobody has read."""
        names = [f"{self._prefix}layer:{diff_id}" for diff_id in diff_ids]
        if not names:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.mget(names)
        for name in names:
            pipeline.expire(name, HASH_KEEP_SECONDS)
        return cast(list[bytes | None], pipeline.execute()[0])

    def keep_fact(self, name: str, fact: str) -> None:
        """Keep something that never changes."""
        self._redis.set(f"{self._prefix}fact:{name}", fact, ex=HASH_KEEP_SECONDS)

    def find_fact(self, name: str) -> str | None:
        """Return what was kept; None if nothing was."""
        found = self._redis.getex(f"{self._prefix}fact:{name}", ex=HASH_KEEP_SECONDS)
        return found.decode() if isinstance(found, bytes) else None
