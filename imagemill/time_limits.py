"""How long what is asked of servers may take in all, as the step knows it that asks."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_end: ContextVar[float] = ContextVar("end", default=math.inf)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let all that this thread asks of servers in the block take so long, and no longer."""
    token = _end.set(min(_end.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _end.reset(token)


def end_of_block() -> float:
    """Return when the time of the innermost block ends, by `time.monotonic`; without one never."""
    return _end.get()
