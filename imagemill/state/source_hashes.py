"""Source hashes that were found before, in Redis: what cannot change is fetched and hashed once, on
one worker.
"""

import hashlib

from redis import Redis

from imagemill.names import HASH_KEEP_SECONDS


class BaseDigests:
    """Base image → the digest that it had not long ago."""

    def __init__(self, redis: Redis, prefix: str, seconds: float) -> None:
        self._redis, self._milliseconds = redis, max(1, int(seconds * 1000))
        self._prefix = f"{prefix}imagemill:base:"

    def find(self, image: str) -> str | None:
        """Return the digest; None if it is not known, or not any more."""
        found = self._redis.get(self._prefix + image)
        return found.decode() if isinstance(found, bytes) else None

    def keep(self, image: str, digest: str) -> None:
        """Remember a digest."""
        self._redis.set(self._prefix + image, digest, px=self._milliseconds)

    def forget(self, image: str) -> None:
        """Have the image asked for anew, whose tag was moved."""
        self._redis.delete(self._prefix + image)


class KnownHashes:
    """Inputs, as a text that names all of them → the source hash."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}imagemill:hash:"

    def find(self, inputs: str) -> str | None:
        """Return the source hash of these inputs; None if nobody has found it, or not for long."""
        found = self._redis.getex(self._key(inputs), ex=HASH_KEEP_SECONDS)
        return found.decode() if isinstance(found, bytes) else None

    def keep(self, inputs: str, source_hash: str) -> None:
        """Remember what was found."""
        self._redis.set(self._key(inputs), source_hash, ex=HASH_KEEP_SECONDS)

    def forget(self, inputs: str) -> None:
        """Forget a hash that turned out to be wrong."""
        self._redis.delete(self._key(inputs))

    def _key(self, inputs: str) -> str:
        return self._prefix + hashlib.sha256(inputs.encode()).hexdigest()
