"""The entry: the only task that other services call. Its id is the build's id, its result the report."""

import time
from contextlib import suppress
from typing import Any

from celery import Task, shared_task
from celery.canvas import Signature
from celery.exceptions import Ignore

from imagemill.build import Build, BuildRequest
from imagemill.errors import ImagemillError, UserError
from tasks import pipeline
from tasks.report_failure import fail


class _Entry(Task[Any, Any]):
    """A task that is replaced without `Task.replace`'s exception, which costs more than the task (ADR 10)."""

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Leave to the worker, as callers by name do, whether the result is stored: the caller waits for the report."""
        options.setdefault("ignore_result", None)
        return super().apply_async(*args, **options)

    def give_way(self, successor: Signature) -> None:
        """Let `successor` have this task's id, and all that was to come after it."""
        with suppress(Ignore):
            self.replace(successor)
        if self.request.ignore_result is False:
            # Asked for by the caller, Celery would store what this task returns as the build's result.
            raise Ignore("Replaced")
        # What Celery does when a task has returned is the successor's to do.
        self.request.callbacks = self.request.chain = self.request.chord = None


@shared_task(
    bind=True,
    base=_Entry,
    name=pipeline.ENTRY,
    throws=(ImagemillError,),
    ignore_result=True,
    Request="tasks.events:EntryRequest",
)
def build_image(self: _Entry, request: dict[str, Any]) -> None:
    """Build an image. `request` is a `BuildRequest` as JSON (docs/schema/build-request.json).

    The result is a `BuildReport` as JSON (docs/schema/build-report.json); a build that fails raises its error.
    """
    try:
        parsed = BuildRequest.parse(request)
    except UserError as error:
        fail(Build(id=self.request.id, request=BuildRequest(source="?"), started=time.time()), error)
        raise
    build = Build(id=self.request.id, request=parsed, started=time.time())
    self.give_way(pipeline.start(build))
