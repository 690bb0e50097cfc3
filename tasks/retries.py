"""How long a step waits before it is tried again, and when it is not any more."""

import random

from imagemill.errors import ServiceUnreachable, TransientError
from tasks.settings import Setup

_DOUBLINGS = 30  # more would be longer than any longest pause
QUICKLY = 5.0
"""Seconds within which a step has seen that a server is away."""

FOR_A_TRY = 1.0
"""Seconds of the build's time that are left for a try at least, and for its message on the way: so
a build whose time is up says which server was away, not that it was slow.
"""

ATTENDED_TRIES = 1
"""How often what does not exist at its address is tried again while a person waits for it."""


def pause(
    error: TransientError, tried: int, limits: Setup, *, took: float, remaining: float
) -> float | None:
    """Return the seconds until the next try of a step that was tried again `tried` times already;
    None if it is not to be tried any more.

    A server that is away is waited for until the build's time is up, `remaining` seconds from now,
    if that is seen quickly: a step that `took` long holds a place of the worker's pool each time.
    """
    if error.exhausted or tried >= _tries(error, limits, took):
        return None
    left = remaining - max(FOR_A_TRY, took)
    if error.retry_after is not None:
        return error.retry_after if error.retry_after < left else None
    longest = min(limits.retry_backoff_max, limits.retry_backoff * 2 ** min(tried, _DOUBLINGS))
    wait = random.uniform(longest / 2, longest)  # so that those who failed together do not again
    return min(wait, left) if left > 0 else None


def _tries(error: TransientError, limits: Setup, took: float) -> float:
    if limits.attended:
        return min(ATTENDED_TRIES, limits.max_retries) if error.refused else limits.max_retries
    is_away = isinstance(error, ServiceUnreachable) and took <= QUICKLY
    return float("inf") if is_away else limits.max_retries
