"""The seal on what workers tell each other by way of Redis and the broker: it shows that a worker
wrote it, and that nobody has changed it since.

Where the operator gives all workers a key, nothing else is believed. Else each state folder has a
key that was made up there: what workers of another folder wrote is believed where they have said in
Redis that they are there, and a warning says what to do about it.
"""

import hashlib
import logging
import time
from typing import Protocol

from redis import Redis

from imagemill.errors import OperatorError
from imagemill.names import BUILD_KEEP_SECONDS
from imagemill.signing import Keys

log = logging.getLogger(__name__)

_ANNOUNCED_SECONDS = 3600.0
"""How often a worker that seals something says that it is there."""


class BrokenSealError(OperatorError):
    """What was read is not what a worker wrote."""

    def __init__(self, message: str = "", hint: str = "") -> None:
        super().__init__(
            message or "What Redis holds of the build is not what a worker wrote",
            hint
            or "see who else may write to Redis, and that all workers have the same"
            " IMAGEMILL_SIGNING_KEYS",
        )


class KnownSigners(Protocol):
    """The fingerprints of workers whose keys were made up."""

    def announce(self, name: str) -> None:
        """Make a fingerprint known."""

    def knows(self, name: str) -> bool:
        """Return whether workers with a key of this fingerprint are there."""


class Signers:
    """The fingerprints, in Redis, for as long as what was sealed with their keys is kept.

    They are the members of a sorted set, by the time when they were last announced.
    """

    def __init__(self, redis: Redis, key: str) -> None:
        self._redis, self._key = redis, key
        self._announced = -_ANNOUNCED_SECONDS

    def announce(self, name: str) -> None:
        """Make a fingerprint known, and forget those that have not been for long."""
        if time.monotonic() - self._announced < _ANNOUNCED_SECONDS:
            return
        keep, now = BUILD_KEEP_SECONDS + round(_ANNOUNCED_SECONDS), time.time()
        pipeline = self._redis.pipeline()
        pipeline.zadd(self._key, {name: now})
        pipeline.zremrangebyscore(self._key, "-inf", now - keep)
        pipeline.expire(self._key, keep)
        pipeline.execute()
        self._announced = time.monotonic()

    def knows(self, name: str) -> bool:
        """Return whether workers with a key of this fingerprint were there not long ago."""
        return self._redis.zscore(self._key, name) is not None


class Seal:
    """Seals texts, and opens them again.

    `signers` are those whose keys were made up; None where the operator has given the keys, so that
    there are no others.
    """

    def __init__(self, keys: Keys, signers: KnownSigners | None = None) -> None:
        self._keys, self._signers = keys, signers
        self._fingerprints = {fingerprint(key) for key in keys.keys}
        self._warned = False

    def close(self, purpose: str, build: str, text: str) -> str:
        """Return the text under a seal, for one purpose and one build."""
        if self._signers is not None:
            self._signers.announce(fingerprint(self._keys.keys[0]))
        mark = f"{fingerprint(self._keys.keys[0])}.{self._keys.sign(purpose, build, text)}"
        return f"{mark}\n{text}"

    def open(self, purpose: str, build: str, sealed: str) -> str:
        """Return the text; `BrokenSealError` if no worker sealed just this. It is not read before."""
        mark, _, text = sealed.partition("\n")
        name, _, signature = mark.partition(".")
        if name in self._fingerprints:
            if self._keys.signed(signature, purpose, build, text):
                return text
        elif self._signers is not None and self._signers.knows(name):
            self._warn(name)
            return text
        raise BrokenSealError

    def _warn(self, name: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "Workers with another key (%s) are believed without proof: give all workers one key,"
                " in a file that IMAGEMILL_SIGNING_KEYS names",
                name,
            )


def fingerprint(key: bytes) -> str:
    """Return what a key is told apart by; it tells nothing of the key."""
    return hashlib.sha256(b"imagemill-fingerprint\n" + key).hexdigest()[:16]
