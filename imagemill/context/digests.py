"""Digests of files, made in a thread of their own while the next bytes are read, and written to
where they go.

Handing over small files one by one would cost more than it gains, since the two threads would wait
for the interpreter's lock all the time. In batches, and with next to no Python between two digests,
reading and hashing overlap. Of a large file each chunk is a batch.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_BATCH_SIZE = 4 << 20
"""Bytes that are handed over at once."""

_BATCH_LENGTH = 2_000
"""… or as many contents, whichever comes first."""

_MOST_WAITING = 2
"""How many batches may wait to be hashed, which bounds the memory."""

Update = Callable[[bytes], None]
"""Takes the next bytes of a file."""


class Digests:
    """Takes contents, one by one, and gives their digests, in the same order."""

    def __init__(self) -> None:
        self._batch: list[bytes] = []
        self._size = 0
        self._waiting: deque[Future[list[str]]] = deque()
        """Of what is handed over; the thread does one after the other."""
        self._done: list[str] = []

    @cached_property
    def _thread(self) -> "ThreadPoolExecutor":
        from concurrent.futures import ThreadPoolExecutor  # most projects need none

        return ThreadPoolExecutor(max_workers=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if "_thread" in self.__dict__:
            self._thread.shutdown(cancel_futures=True)

    def add(self, content: bytes) -> None:
        """Take one more content."""
        self._batch.append(content)
        self._size += len(content)
        if self._size >= _BATCH_SIZE or len(self._batch) >= _BATCH_LENGTH:
            self._flush()

    @contextmanager
    def large(self) -> Iterator[Update]:
        """Take one more content, chunk by chunk while the block runs."""
        self._flush()
        digest = hashlib.sha256()

        def update(chunk: bytes) -> list[str]:
            digest.update(chunk)
            return []

        yield lambda chunk: self._hand_over(partial(update, chunk))
        self._hand_over(lambda: [digest.hexdigest()])

    def sha256s(self) -> Iterator[str]:
        """Return the digests, in hex, of all contents so far."""
        # Here, not in the thread: nothing is read meanwhile, and most projects need no thread at
        # all.
        last = _sha256s(self._batch)
        self._batch, self._size = [], 0
        while self._waiting:
            self._collect()
        self._done += last
        return iter(self._done)

    def _flush(self) -> None:
        if self._batch:
            self._hand_over(partial(_sha256s, self._batch))
            self._batch, self._size = [], 0

    def _hand_over(self, job: Callable[[], list[str]]) -> None:
        self._waiting.append(self._thread.submit(job))
        if len(self._waiting) > _MOST_WAITING:
            self._collect()

    def _collect(self) -> None:
        self._done += self._waiting.popleft().result()


def _sha256s(contents: list[bytes]) -> list[str]:
    return [hashlib.sha256(content).hexdigest() for content in contents]
