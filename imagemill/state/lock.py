"""One build at a time per image, and per what comes before its code: locks in Redis that outlive
their steps, but not their worker.

The lock belongs to a *build*, not to a process: a redelivered message of the same build gets its
own lock back. While a step runs the lock is short-lived and renewed by a thread, so it is free
again soon after a worker has died; between two steps, when the build is a message in a queue and
nobody can renew, it lasts until the build's deadline.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from redis import Redis
from redis.exceptions import LockError
from redis.lock import Lock

from imagemill.state.journal import LOST

log = logging.getLogger(__name__)


class ImageLock:
    """The lock on one image (`repository:tag`), as seen by one build.

    `lease` is in seconds; `lost` says that another build took the lock over.
    """

    def __init__(self, redis: Redis, prefix: str, image: str, build: str, lease: float) -> None:
        self._token = build.encode()
        self._lease = lease
        self._redis = redis
        self._lock = Lock(
            redis, f"{prefix}imagemill:lock:{image}", timeout=lease, thread_local=False
        )
        # Lock compares this with what stands in Redis, so that a build's next process holds what
        # its last one took.
        self._lock.local.token = self._token
        self.lost = False

    def acquire(self) -> bool:
        """Take the lock if it is free or this build's own already; does not wait."""
        if self._lock.owned():
            self._lock.reacquire()
            return True
        return bool(self._lock.acquire(blocking=False, token=self._token.decode()))

    def holder(self) -> str:
        """Return the id of the build that holds the lock; empty if it is free."""
        value = self._redis.get(self._lock.name)
        return value.decode() if isinstance(value, bytes) else ""

    def release(self) -> bool:
        """Give the lock back; False if this build does not have it."""
        try:
            self._lock.release()
        except LockError:
            return False
        finally:
            self._lock.local.token = self._token
        return True

    def free(self, build: str) -> None:
        """Free the lock if it is that of `build`, which is over."""
        other = Lock(self._redis, self._lock.name, thread_local=False)
        other.local.token = build.encode()
        with suppress(LockError):
            other.release()

    @contextmanager
    def renewed(self, afterwards: float) -> Iterator[None]:
        """Keep the lock while the block runs, then leave it for `afterwards` seconds to the build's
        next step.
        """
        ended = threading.Event()
        thread = threading.Thread(target=self._renew, args=(ended,), name="image-lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        self.keep(afterwards)

    def keep(self, seconds: float) -> None:
        """Leave the lock to the build for so many seconds."""
        with suppress(LockError):  # lost meanwhile: it is another build's
            self._lock.extend(max(seconds, self._lease), replace_ttl=True)

    def _keep(self) -> None:
        """Renew the lock; take it again where it ended while Redis was away, and nobody has it."""
        try:
            self._lock.reacquire()
        except LockError:
            if not self.acquire():
                raise

    def _renew(self, ended: threading.Event) -> None:
        while not ended.wait(self._lease / 3):
            try:
                self._keep()
            except LockError:
                # This process was stopped for longer than the lease, and another build took over.
                self.lost = True
                return
            except LOST as error:
                log.warning("The lock %s could not be renewed: %s", self._lock.name, error)


_READER = "/layers"
"""After a build's id: that what it has made is being read."""


class DependencyLock(ImageLock):
    """The lock on what comes before the code, by the key that all have who could build on it.

    It belongs to the build that makes it, and then to whoever reads what is in the layers of that.
    """

    def __init__(self, redis: Redis, prefix: str, key: str, build: str, lease: float) -> None:
        super().__init__(redis, prefix, f"dependencies:{key}", build, lease)
        self.name = f"dependencies:{key}"

    @classmethod
    def of_reader(cls, redis: Redis, prefix: str, key: str, build: str, lease: float) -> Self:
        """Return the lock as it is seen by whoever reads the layers that `build` has made."""
        return cls(redis, prefix, key, f"{build}{_READER}", lease)

    @property
    def is_read(self) -> bool:
        """Whether what was made is being read."""
        return super().holder().endswith(_READER)

    def holder(self) -> str:
        """Return the id of the build that makes it, or has made what is being read; empty if it is
        free.
        """
        return super().holder().removesuffix(_READER)

    def hand_over(self, seconds: float) -> None:
        """Leave the lock, if this build has it, to whoever reads the layers within `seconds`."""
        if self._lock.owned():
            self._redis.set(
                self._lock.name, self._token + _READER.encode(), xx=True, px=int(seconds * 1000)
            )
