"""The records of what images were made from, in Redis, beside the journals of the builds."""

from redis import Redis

from imagemill.names import BUILD_KEEP_SECONDS
from imagemill.why.record import InputRecord


class InputRecords:
    """Source hash → the record of the inputs that it stands for.

    A record is kept for `names.BUILD_KEEP_SECONDS` after it was last used, as the journal of a build
    is.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}imagemill:"

    def keep(self, source_hash: str, record: InputRecord) -> None:
        """Keep the record."""
        self._redis.set(self._record(source_hash), record.dump(), ex=BUILD_KEEP_SECONDS)

    def find(self, source_hash: str) -> InputRecord | None:
        """Return the record; None if nobody has kept it, or nobody has used it for too long. Errors
        are `load`'s.
        """
        found = self.find_dumped(source_hash)
        return None if found is None else InputRecord.load(found)

    def find_dumped(self, source_hash: str) -> bytes | None:
        """Return the record as it is kept, which is as quick for one of many files; else as
        `find`.
        """
        found = self._redis.getex(self._record(source_hash), ex=BUILD_KEEP_SECONDS)
        return found if isinstance(found, bytes) else None

    def use(self, source_hash: str) -> bool:
        """Note that the record is used; False if there is none (any more)."""
        return bool(self._redis.expire(self._record(source_hash), BUILD_KEEP_SECONDS))

    def _record(self, source_hash: str) -> str:
        return f"{self._prefix}inputs:{source_hash}"
