"""The entry: the only task that other services call. Its id is the build's id, its result the
report.
"""

import logging
import time
from typing import Any

from celery import Task, shared_task
from celery.app.task import Context
from celery.exceptions import Ignore

from imagemill.errors import ImagemillError, PermissionDenied, UserError
from imagemill.grammar import BUILD_ID
from imagemill.messages import Build, BuildReport, Failure
from imagemill.names import BUILD_IMAGE
from imagemill.tracing import HEADER, accepted
from tasks import log_context, pipeline, tracing
from tasks.requests import parsed_request
from tasks.run import waiting_for_redis
from tasks.settings import journal, records
from tasks.signals import build_began

log = logging.getLogger(__name__)


class _Entry(Task[Any, Any]):
    """Called by others, who wait for the result of its id."""

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Leave to the worker, as callers by name do, whether the result is stored: the caller
        waits for the report.
        """
        options.setdefault("ignore_result", None)
        return super().apply_async(*args, **options)


@shared_task(
    bind=True,
    base=_Entry,
    name=BUILD_IMAGE,
    throws=(ImagemillError,),
    ignore_result=True,
    # Who asks for something that is refused is told so by the result.
    store_errors_even_if_ignored=True,
    Request="tasks.events:EntryRequest",
)
def build_image(
    self: _Entry,
    request: dict[str, Any] | str,
    tenant: str | None = None,
    issued: str | None = None,
    signature: str | None = None,
) -> None:
    """Build an image. `request` is a `BuildRequest` as JSON (docs/schema/build-request.json); the
    other arguments are those of a request that a tenant has signed (`imagemill.tenants`).

    The result is a `BuildReport` as JSON (docs/schema/build-report.json); a build that fails raises
    its error.
    """
    build_id = BUILD_ID.checked(str(self.request.id))
    log_context.bind(build=build_id, step="build_image")
    try:
        parsed, tenant = parsed_request(self.request, request, tenant, issued, signature)
    except (UserError, PermissionDenied) as error:
        log.info("The build is refused: %s", error)
        with waiting_for_redis():
            report = BuildReport(id=build_id, status="failed", error=Failure.of(error))
            journal().end(build_id, report)
        raise
    parent = accepted((self.request.headers or {}).get(HEADER))
    with tracing.span("build_image", build_id, parent) as own, waiting_for_redis():
        build = Build(
            id=build_id, request=parsed, started=time.time(), tenant=tenant, traceparent=own
        )
        first = pipeline.queue(pipeline.FIRST, build)
        due = records().begin(build, pipeline.FIRST, first, _canvas(self.request))
    if due is None:
        raise Ignore("The build has begun already")
    log.info("A build begins: %r", parsed)
    build_began.send(sender=None, build=build)
    pipeline.send(due)
    if self.request.ignore_result is False:
        # Asked for by the caller, Celery would store what this task returns as the build's result.
        raise Ignore("The result is the report's")
    # What Celery does when a task has returned is the report's to do.
    self.request.callbacks = self.request.chain = self.request.chord = None


def _canvas(request: Context) -> dict[str, Any]:
    """Return what is to be done with the result, as options of the task that has it."""
    asked = {
        "link": request.callbacks,
        "link_error": request.errbacks,
        "chain": request.chain,
        "chord": request.chord,
        "group_id": request.group,
        "group_index": request.group_index,
    }
    return {option: value for option, value in asked.items() if value is not None}
