"""What a process keeps for itself: a forked child must not write to the connections of its parent,
nor wait for its threads.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class _PerProcess(Generic[P, T]):
    def __init__(self, make: Callable[P, T], most: int) -> None:
        def made(process: int, *args: P.args, **named: P.kwargs) -> T:
            return make(*args, **named)

        self.__doc__ = make.__doc__
        self._kept: Any = lru_cache(maxsize=most)(made)

    def __call__(self, *args: P.args, **named: P.kwargs) -> T:
        found: T = self._kept(os.getpid(), *args, **named)
        return found

    def cache_clear(self) -> None:
        """Make anew what is asked for next."""
        self._kept.cache_clear()


def per_process(most: int) -> Callable[[Callable[P, T]], _PerProcess[P, T]]:
    """Make a function return the same object for the same arguments each time in one process, for
    as long as they are among the `most` that were asked for last.
    """
    return lambda make: _PerProcess(make, most)
