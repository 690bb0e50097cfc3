"""Ctrl-C, so that it is never lost.

Python drops a `KeyboardInterrupt` that comes while it finalises an object; so until there is a
build to cancel, each one is remembered as well as raised. Where the caller has us ignore the
signal, as shells do for background jobs, it stays ignored.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_seen = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """While the block runs, an interrupt is remembered and raised."""
    _seen.clear()

    def interrupted(number: int, frame: FrameType | None) -> None:
        _seen.set()
        raise KeyboardInterrupt

    with _handled(interrupted):
        yield


@contextmanager
def held() -> Iterator[None]:
    """While the block runs, an interrupt is remembered alone, for `calling`."""
    with _handled(lambda number, frame: _seen.set()):
        yield


@contextmanager
def calling(act: Callable[[], None]) -> Iterator[threading.Event]:
    """While the block runs, the first interrupt calls `act` in a thread, the second is raised as
    `KeyboardInterrupt`.

    One that was dropped before counts as the first. The event says whether there was one.
    """
    first = threading.Event()

    def interrupted(number: int, frame: FrameType | None) -> None:
        if first.is_set():
            raise KeyboardInterrupt
        first.set()
        # In a thread, since this may have come into the middle of anything, such as a print.
        threading.Thread(target=act, daemon=True).start()

    with _handled(interrupted):
        if _seen.is_set():
            interrupted(signal.SIGINT, None)
        yield first


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
