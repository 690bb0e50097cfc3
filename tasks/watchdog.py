"""Ends a step that is past its time where it does not look at the clock: in every pool, threads too.

One thread per process raises `OutOfTime` in the thread that runs the step (PyThreadState_SetAsyncExc,
https://docs.python.org/3/c-api/threads.html). That ends whatever runs in Python. What runs in C
returns in time of its own: patterns are RE2's, sizes are bounded before anything is parsed, what is
asked of servers has one time limit (`imagemill.time_limits`). A process of a pool that does not come
back even so is killed by Celery (`worker/celeryconfig.py`).
"""

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from imagemill.per_process import per_process

GRACE_SECONDS = 2.0
"""How long a step may be past its time: most end by themselves, where they look at the clock."""

_LOOK_SECONDS = 0.5


class OutOfTime(BaseException):
    """The step is past its time."""


@dataclass(eq=False)
class _Watch:
    ends: float
    thread: int = field(default_factory=threading.get_ident)


class Watchdog:
    """Watches the steps that run in this process.

    Whoever takes a watch out of `_watches` has it, its step or the watchdog: that is one operation
    of a dict, and no lock, since what the watchdog raises may come while a lock is being taken.
    """

    def __init__(self) -> None:
        self._watches: dict[_Watch, bool] = {}
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def watching(self, seconds: float) -> Iterator[None]:
        """Raise `OutOfTime` in this thread if the block is not over after so many seconds."""
        watch, came = _Watch(time.monotonic() + seconds), False
        self._watches[watch] = True
        try:
            yield
        except OutOfTime:
            came = True
            raise
        finally:
            if not came and not self._watches.pop(watch, False):
                # What the watchdog is about to raise is taken: nobody is to have it who comes
                # after. It may have come, and been made into another error.
                with suppress(OutOfTime):
                    for _ in range(100):
                        time.sleep(0.01)

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            for watch in list(self._watches):
                if watch.ends <= now and self._watches.pop(watch, False):
                    error = ctypes.py_object(OutOfTime)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(watch.thread), error)


@per_process(1)
def watchdog() -> Watchdog:
    """Return what watches the steps of this process."""
    return Watchdog()
