"""What those who watch the workers (Flower) are told of a build, beside Celery's own events of its
tasks.

Celery's events are of one task each, and a build's id is that of its first and of its last task.
Here each step says, as an event of that id, which state the build has come to: `task-hashing`,
`task-building` and so on, which Flower shows as the task's state. It does so in the worker's main
process, which sends events in batches.
"""

import logging
import re
import time
from typing import Any

from celery import current_app
from celery.worker.request import Request
from kombu.exceptions import OperationalError

from imagemill.names import BUILD_IMAGE
from imagemill.text import one_line

log = logging.getLogger(__name__)

_SHOWN = 500
"""Characters of what Flower shows of a request."""


class DiscreetRequest(Request):
    """Shows nobody its arguments, which hold values of build arguments: not to `celery inspect`,
    and to events, and so to Flower, only what is built from where to where, whoever sent the message.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        shown = {"argsrepr": "()", "kwargsrepr": _described(self.kwargs)}
        self._argsrepr, self._kwargsrepr = shown.values()
        self.request_dict.update(shown)

    def info(self, safe: bool = False) -> Any:
        """Return Celery's description for `inspect`, always with what `argsrepr` shows."""
        return super().info(safe=True)


def _described(kwargs: Any) -> str:
    request = kwargs.get("request") if isinstance(kwargs, dict) else None
    if not isinstance(request, dict):
        return "{}"
    # A URL may have a password in front, which is refused later, and a signature behind.
    source = re.sub(r"//[^/@]*@", "//", str(request.get("source"))).partition("?")[0]
    shown = {"source": source}
    shown |= {name: request[name] for name in ("destination", "tags", "target") if name in request}
    return one_line(repr(shown), _SHOWN)


class EntryRequest(DiscreetRequest):
    """The entry's: it ends long before the build, so its success is nobody's news."""

    def send_event(self, type: str, **fields: Any) -> None:
        """Celery's, but for `task-succeeded`."""
        if type != "task-succeeded":
            super().send_event(type, **fields)


class StepRequest(Request):
    """A step's: when it starts, the build has come to its state."""

    def info(self, safe: bool = False) -> Any:
        """Return Celery's description for `inspect`, without the message of the build."""
        return super().info(safe=True)

    def send_event(self, type: str, **fields: Any) -> None:
        """Celery's, and the build's state, where it lasts long enough to be looked at."""
        super().send_event(type, **fields)
        task: Any = self.task
        if type == "task-started" and task.announced and self.eventer and self.eventer.enabled:
            build = self.args[0]["id"]
            self.eventer.send(
                f"task-{task.state.lower()}", uuid=build, name=BUILD_IMAGE, args=f"({build})"
            )


class ReportRequest(StepRequest):
    """The report's: when it is there, the build has succeeded, and has taken all the time since it
    began.
    """

    def send_event(self, type: str, **fields: Any) -> None:
        """Only that, under the name and with the arguments of the entry."""
        if type == "task-succeeded" and self.eventer and self.eventer.enabled:
            seconds = time.time() - self.args[0]["started"]
            self.eventer.send(type, uuid=self.id, **{**fields, "runtime": seconds})


def failed(build: str, error: str, worker: str | None) -> None:
    """Tell of the end of a build of which a step has failed; where nobody can be told, the build
    goes without.

    `worker` is the name of the worker that the step was on.
    """
    try:
        with current_app.events.default_dispatcher(hostname=worker) as dispatcher:
            dispatcher.send(
                "task-failed", uuid=build, name=BUILD_IMAGE, exception=error, retry=False
            )
    except OperationalError as unsent:
        log.warning("Could not send the event of the failure: %s", unsent)
