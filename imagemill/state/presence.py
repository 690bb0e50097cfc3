"""Which workers there are: each says so in Redis, every few seconds."""

import json
from dataclasses import asdict, dataclass

from redis import Redis

ANNOUNCED_SECONDS = 5.0
"""How often a worker says that it is there."""

GONE_SECONDS = 20.0
"""For how long a worker that says nothing any more is taken to be there."""

# The server's clock, since those of the workers differ.
_ANNOUNCE = """
local workers, times = unpack(KEYS)
local name, text, gone = unpack(ARGV)
local now = tonumber(redis.call('TIME')[1])
redis.call('HSET', workers, name, text)
redis.call('ZADD', times, now, name)
for _, lost in ipairs(redis.call('ZRANGEBYSCORE', times, '-inf', now - gone)) do
    redis.call('HDEL', workers, lost)
    redis.call('ZREM', times, lost)
end
for _, key in ipairs(KEYS) do
    redis.call('EXPIRE', key, math.ceil(gone))
end
"""

_FORGET = """
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
"""


@dataclass(frozen=True)
class Worker:
    """A worker that takes tasks: the queues that it serves, and the fingerprint of the key that it
    signs with.
    """

    name: str
    queues: tuple[str, ...]
    key: str


class Presence:
    """The workers of one Redis."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._keys = [f"{prefix}imagemill:workers", f"{prefix}imagemill:workers:times"]
        self._announce = redis.register_script(_ANNOUNCE)
        self._forget = redis.register_script(_FORGET)

    def announce(self, worker: Worker) -> None:
        """Say that a worker is there."""
        self._announce(self._keys, [worker.name, json.dumps(asdict(worker)), GONE_SECONDS])

    def forget(self, name: str) -> None:
        """Say that a worker is there no longer."""
        self._forget(self._keys, [name])

    def workers(self) -> list[Worker]:
        """Return the workers that have said lately that they are there."""
        pipeline = self._redis.pipeline()
        pipeline.time()
        pipeline.zrange(self._keys[1], 0, -1, withscores=True)
        pipeline.hgetall(self._keys[0])
        (now, _), times, texts = pipeline.execute()
        there = (name for name, time in times if now - time < GONE_SECONDS and name in texts)
        found = (json.loads(texts[name]) for name in sorted(there))
        return [Worker(each["name"], tuple(each["queues"]), each["key"]) for each in found]
