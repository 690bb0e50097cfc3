"""How many builds a tenant has: at a time, in the order in which they came, and on one day."""

import time
from datetime import UTC, datetime

from redis import Redis

from imagemill.names import BUILD_KEEP_SECONDS


class Quotas:
    """The builds of all tenants in one Redis; the tenant `""` is everybody who has not signed."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}imagemill:tenant:"

    def place(self, tenant: str, build: str) -> int:
        """Return how many builds of the tenant are before this one, which is in the line by then."""
        line, now = self._line(tenant), time.time()
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.zremrangebyscore(line, 0, now - BUILD_KEEP_SECONDS)  # nobody knows them any more
        pipeline.zadd(line, {build: now}, nx=True)
        pipeline.expire(line, BUILD_KEEP_SECONDS)
        pipeline.zrank(line, build)
        return int(pipeline.execute()[-1])

    def leave(self, tenant: str, build: str) -> None:
        """Take a build that has ended out of the line."""
        self._redis.zrem(self._line(tenant), build)

    def today(self, tenant: str, build: str) -> int:
        """Return how many builds of the tenant have begun today (UTC), with this one."""
        key = f"{self._prefix}{tenant}:{datetime.now(UTC).date().isoformat()}"
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.sadd(key, build)
        pipeline.expire(key, 24 * 3600)
        pipeline.scard(key)
        return int(pipeline.execute()[-1])

    def _line(self, tenant: str) -> str:
        return f"{self._prefix}{tenant}:line"
