"""Counts bytes on their way, and says now and then how many there were, and how fast."""

import time
from collections.abc import Callable

from imagemill.ports import Progress
from imagemill.text import amount

EVERY = 1.0
"""Seconds between two things that are said."""


class Meter:
    """Counts the bytes that are `done` (`hashed`, `copied` …)."""

    def __init__(
        self, done: str, progress: Progress, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._done, self._progress, self._clock = done, progress, clock
        self._begun = self._said = clock()
        self._bytes = 0

    def check(self) -> None:
        """See `Progress.check`."""
        self._progress.check()

    def add(self, size: int) -> None:
        """Count so many bytes more."""
        self._bytes += size
        now = self._clock()
        if now - self._said >= EVERY:
            self._said = now
            rate = int(self._bytes / (now - self._begun))
            self._progress.amount(f"{amount(self._bytes)} {self._done}, {amount(rate)}/s")
