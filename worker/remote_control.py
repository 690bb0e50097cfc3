"""What a worker does when it is asked by Celery's remote control (IMAGEMILL_REMOTE_CONTROL).

By default it does not listen: whoever may publish to the broker could stop it, or have it pass over
builds. To `questions`, as those of Flower, it gives answers; `orders` it obeys only where it is told
to.
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


def install(what: str) -> None:
    """Have the workers of this process answer questions alone, unless they are to obey orders, too."""
    if what == "orders":
        return
    for name in Panel.data.keys() - QUESTIONS:
        Panel.data[name] = partial(_refuse, name)


def _refuse(order: str, _state: Any, /, **_: Any) -> dict[str, str]:
    log.warning("The order %s of remote control is not obeyed", order)
    return {"error": "it is not obeyed: see IMAGEMILL_REMOTE_CONTROL"}
