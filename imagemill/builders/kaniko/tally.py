"""How many Jobs this process watches, and how far they are, for whoever measures it."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

State = Literal["pending", "running"]

_watched: dict[str, State] = {}


def note(uid: str, state: State) -> None:
    """Note how far a Job is that a build watches."""
    _watched[uid] = state


def forget(uid: str) -> None:
    """Note that no build watches the Job any more."""
    _watched.pop(uid, None)


def by_state() -> Iterable[tuple[State, int]]:
    """Return how many Jobs are in each state, of all states."""
    counted = Counter(list(_watched.values()))
    return [("pending", counted["pending"]), ("running", counted["running"])]
