"""Messages that no worker may work with, in Redis, with the reason: for a person to look at."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

MOST = 1000
"""How many are kept; older ones make room."""


@dataclass(frozen=True)
class DeadLetter:
    """A message that was refused. `message` is as much of it as could be read."""

    id: str
    at: float
    queue: str
    reason: str
    message: Mapping[str, Any]


class DeadLetters:
    """The dead letters of all workers, oldest first."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._key = f"{prefix}imagemill:dead"

    def add(self, queue: str, reason: str, message: Mapping[str, Any]) -> None:
        """Keep a message that was taken from the queue."""
        kept = {"at": time.time(), "queue": queue, "reason": reason, "message": message}
        self._redis.xadd(self._key, {"letter": json.dumps(kept)}, maxlen=MOST, approximate=False)

    def all(self) -> list[DeadLetter]:
        """Return all that are kept."""
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", self._redis.xrange(self._key))
        return [
            DeadLetter(id=position.decode(), **json.loads(fields[b"letter"]))
            for position, fields in entries
        ]

    def find(self, letter: str) -> DeadLetter | None:
        """Return the letter with this id; None if there is none (any more)."""
        return next((found for found in self.all() if found.id == letter), None)

    def drop(self, letter: str) -> bool:
        """Forget a letter; False if there was none."""
        return bool(self._redis.xdel(self._key, letter))
