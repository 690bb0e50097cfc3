"""Tells the steps of a worker that it has been told to end."""

import mmap
import struct
import time
from typing import Any

_ENDING = mmap.mmap(-1, 8)
"""When the worker was told to end, for all processes of its pool: they are forked from it later."""


def begin(**_: Any) -> None:
    """For Celery's signal `worker_shutting_down`."""
    _ENDING[:] = struct.pack("d", time.time())


def seconds() -> float | None:
    """Return for how long the worker has been ending; None if it is not."""
    (begun,) = struct.unpack("d", _ENDING[:])
    return time.time() - begun if begun else None
