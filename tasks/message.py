"""What Celery is asked to do: now, or later, and then by the reaper of any light worker
(docs/adr/0025-what-waits-lies-in-redis.md).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from celery import current_app

from tasks.settings import later


@dataclass(frozen=True)
class TaskMessage:
    """A task, its arguments, and the options of Celery's `send_task`: all of them JSON."""

    task: str
    args: Sequence[Any]
    options: Mapping[str, Any]

    @classmethod
    def load(cls, text: str) -> Self:
        """Read one that was kept; `ValueError` or `TypeError` if it is none."""
        found = cls(**json.loads(text))
        kinds = (type(found.task), type(found.args), type(found.options))
        if kinds != (str, list, dict):
            raise TypeError("it is not in the form of a message")
        return found

    def send(self) -> None:
        """Send it now; kombu's `OperationalError` if the broker is away for long."""
        current_app.send_task(self.task, args=tuple(self.args), **self.options)

    def send_later(self, message: str, delay: float, *awaited: str) -> None:
        """Have it sent after `delay` seconds, or once any of what it awaits has come about.

        `message` is an id that no other message has.
        """
        later().add(message, json.dumps(asdict(self)), delay, *awaited)
