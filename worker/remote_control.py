"""What a worker does when it is asked by Celery's remote control.

It answers questions, as those of Flower and `Client.workers`. It obeys no orders, unless it is told to
(IMAGEMILL_REMOTE_CONTROL): whoever may publish to the broker could stop it, or have it pass over
builds.
"""

from functools import partial
from logging import getLogger
from typing import Any

from celery.worker.control import Panel

log = getLogger(__name__)

QUESTIONS = frozenset(
    {
        "active",
        "active_queues",
        "clock",
        "enable_events",
        "heartbeat",
        "ping",
        "query_task",
        "registered",
        "reserved",
        "revoked",
        "scheduled",
        "stats",
    }
)
"""What changes nothing of the work, and tells nothing of the settings."""


_hello = Panel.data["hello"]


def install(obeys: bool) -> None:
    """Have the workers of this process answer questions alone, unless they are to obey orders, too."""
    if obeys:
        return
    for name in Panel.data.keys() - QUESTIONS:
        Panel.data[name] = partial(_refuse, name)
    Panel.data["hello"] = _greet


def _refuse(order: str, _state: Any, /, **_: Any) -> dict[str, str]:
    log.warning("The order %s of remote control is not obeyed", order)
    return {"error": "it is not obeyed: see IMAGEMILL_REMOTE_CONTROL"}


def _greet(state: Any, from_node: str, **_: Any) -> Any:
    """Answer another worker that starts, and take from it no list of tasks to pass over."""
    return _hello(state, from_node)
