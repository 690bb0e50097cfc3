"""Counts bytes on their way, and says now and then how many there were, and how fast."""

import io
import time
from collections.abc import Callable
from typing import Any, BinaryIO, cast

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
            told = f"{amount(self._bytes)} {self._done}"
            self._progress.amount(told + rate(self._bytes, now - self._begun))

    def reading(self, file: BinaryIO) -> BinaryIO:
        """Return the file: what is read of it, to be sent, counts."""
        return cast("BinaryIO", _Metered(file, self))


class _Metered(io.RawIOBase):
    def __init__(self, file: BinaryIO, meter: Meter) -> None:
        self._file, self._meter = file, meter

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        self._meter.check()
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._meter.add(len(data))
        return len(data)


def rate(size: float, seconds: float) -> str:
    """Return so many bytes in so many seconds as is said after an amount: `, 12 MB/s`; nothing where
    it cannot be told yet.
    """
    return f", {amount(int(size / seconds))}/s" if seconds > 0 and size > 0 else ""
