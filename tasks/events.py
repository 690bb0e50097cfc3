"""What those who watch the workers (Flower) are told of a build, beside Celery's own events of its
tasks.

Celery's events are of one task each, and a build's id is that of its first and of its last task.
Here each step says, as an event of that id, which state the build has come to: `task-hashing`,
`task-building` and so on, which Flower shows as the task's state. It does so in the worker's main
process, which sends events in batches.
"""

import logging
import re
from typing import Any

from celery.exceptions import WorkerLostError
from celery.worker.request import Request

from imagemill.errors import BuildCancelled
from imagemill.names import BUILD_IMAGE, step_name
from imagemill.state.journal import LOST
from imagemill.state.records import Due
from imagemill.text import one_line
from tasks import pipeline
from tasks.settings import records

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
    """A step's: when it starts, the build has come to its state; when its process dies, somebody
    else may have the step at once.
    """

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """Celery's, which puts the message back if the process is gone."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, (WorkerLostError, SystemExit)):
            self._free()
        super().on_failure(exc_info, send_failed_event, return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Celery's, which ends the process and forgets the message."""
        super().on_timeout(soft, timeout)
        if not soft and (due := self._free()):
            pipeline.send(due)

    def _free(self) -> Due | None:
        """Free the step of the process that died; return what is to be sent, if it had the step."""
        message, holder = self.args[0], f"{self.hostname}:{self.worker_pid}"
        due = Due(
            message["id"],
            message["turn"],
            step_name(self.name),
            str(self.delivery_info["routing_key"]),
        )
        try:
            freed = records().release(due.build, due.turn, holder, died=True)
        except LOST as error:
            log.warning(
                "The step of a process that died is freed by the end of its lease: %s", error
            )
            return None
        return due if freed else None

    def info(self, safe: bool = False) -> Any:
        """Return Celery's description for `inspect`, without the message of the build."""
        return super().info(safe=True)

    def send_event(self, type: str, **fields: Any) -> None:
        """Celery's, and the build's state, where it lasts long enough to be looked at."""
        super().send_event(type, **fields)
        task: Any = self.task
        build = self.root_id  # the message itself may be anybody's
        if type == "task-started" and task.announced and self.eventer and self.eventer.enabled:
            self.eventer.send(
                f"task-{task.state.lower()}", uuid=build, name=BUILD_IMAGE, args=f"({build})"
            )


class ReportRequest(StepRequest):
    """The report's: when it is there, the build has ended."""

    _cancelled = False

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """Celery's, which is told of a build that was cancelled as of one that failed."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        self._cancelled = isinstance(error, BuildCancelled)
        super().on_failure(exc_info, send_failed_event, return_ok)

    def send_event(self, type: str, **fields: Any) -> None:
        """Only that, under the name and with the arguments of the entry."""
        if self._cancelled and type == "task-failed":
            # What Celery says of a task that was called off; nobody has failed.
            type, fields = "task-revoked", {"terminated": False, "signum": None, "expired": False}
        if (
            type in ("task-succeeded", "task-failed", "task-revoked")
            and self.eventer
            and self.eventer.enabled
        ):
            self.eventer.send(type, uuid=self.id, name=BUILD_IMAGE, **fields)
