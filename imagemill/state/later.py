"""Messages that are to be sent later, in Redis: no worker has to keep them until then.

A message is handed to whoever sends it for `SENDING_SECONDS`; if it dies with it, the message is
handed out again. So one may be sent twice, and none is lost.
"""

from typing import Any, cast

from redis import Redis

from imagemill.names import BUILD_KEEP_SECONDS
from imagemill.state.journal import CANCELLED

SENDING_SECONDS = 30.0

_WAITERS_KEEP_SECONDS = 3600

# The server's clock, since those of the workers differ.
_ADD = """
local times, texts = unpack(KEYS)
local id, text, delay, keep, waiters_keep = unpack(ARGV)
local time = redis.call('TIME')
redis.call('ZADD', times, time[1] + time[2] / 1000000 + delay, id)
redis.call('HSET', texts, id, text)
redis.call('EXPIRE', times, keep)
redis.call('EXPIRE', texts, keep)
for key = 3, #KEYS do
    redis.call('SADD', KEYS[key], id)
    redis.call('EXPIRE', KEYS[key], waiters_keep)
end
"""

_WAKING = """
local function wake(times, waiters)
    for _, id in ipairs(redis.call('SMEMBERS', waiters)) do
        redis.call('ZADD', times, 'XX', 0, id)
    end
    redis.call('DEL', waiters)
end
"""

_TAKE = f"""{_WAKING}
local times, texts, cancelled = unpack(KEYS)
local most, sending, waiters = unpack(ARGV)
for _, build in ipairs(redis.call('SPOP', cancelled, most)) do wake(times, waiters .. build) end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local found = {{}}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', times, '-inf', now, 'LIMIT', 0, most)) do
    local text = redis.call('HGET', texts, id)
    if text then
        redis.call('ZADD', times, now + sending, id)
        found[#found + 1] = {{id, text}}
    else
        redis.call('ZREM', times, id)
    end
end
return found
"""

_WAKE = f"""{_WAKING}
wake(unpack(KEYS))
"""


class Later:
    """The messages that all workers have for later, each under an id that is used once."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis, self._prefix = redis, f"{prefix}imagemill:later"
        self._keys = [self._prefix, f"{self._prefix}:messages"]
        self._cancelled = f"{prefix}imagemill:{CANCELLED}"
        self._add = redis.register_script(_ADD)
        self._take = redis.register_script(_TAKE)
        self._wake = redis.register_script(_WAKE)

    def add(self, message: str, text: str, delay: float, *awaited: str) -> None:
        """Keep a message for `delay` seconds, or until `wake` is called for any of what it awaits, or
        a build that is among that is to stop.
        """
        keys = [*self._keys, *map(self._waiters, awaited)]
        self._add(keys, [message, text, delay, BUILD_KEEP_SECONDS, _WAITERS_KEEP_SECONDS])

    def take(self, most: int = 100) -> list[tuple[str, str]]:
        """Return id and text of messages whose time has come, or whose build is to stop; `sent` says
        that they are sent.
        """
        keys = [*self._keys, self._cancelled]
        found = self._take(keys, [most, SENDING_SECONDS, self._waiters("")])
        # What is no text is whoever's who may write here: it is handed out, so that it is dropped.
        return [
            (message.decode(errors="surrogateescape"), text.decode(errors="replace"))
            for message, text in cast("list[Any]", found)
        ]

    def sent(self, message: str) -> None:
        """Forget a message."""
        pipeline, field = self._redis.pipeline(), message.encode(errors="surrogateescape")
        pipeline.zrem(self._keys[0], field)
        pipeline.hdel(self._keys[1], field)
        pipeline.execute()

    def wake(self, awaited: str) -> None:
        """Have the time come of all messages that await this."""
        self._wake([self._keys[0], self._waiters(awaited)])

    def _waiters(self, awaited: str) -> str:
        return f"{self._prefix}:waiters:{awaited}"
