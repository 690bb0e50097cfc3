"""In place of the last step: the report of a build that failed, whichever step it failed in."""

import logging
import time
from typing import Any, Protocol

from celery import shared_task

from imagemill.errors import BuildCancelled, ImagemillError
from imagemill.messages import Build, BuildReport, Failure
from imagemill.names import BUILD, REPORT_FAILURE, step_name
from tasks import events
from tasks.cleanup import clean_up, discard
from tasks.log_context import bound
from tasks.report import ended
from tasks.settings import journal, setup

log = logging.getLogger(__name__)


class FailedTask(Protocol):
    """What Celery hands to an errback of the failed task."""

    args: Any
    task: str
    hostname: str | None


@shared_task(name=REPORT_FAILURE, ignore_result=True)
def report_failure(request: FailedTask, error: Exception, traceback: object) -> None:
    """Called by Celery, once, in the worker whose step failed or died."""
    build = Build.load(request.args[0])
    with bound(build=build.id, step=step_name(request.task)):
        fail(build, error, request.hostname)
        if request.task == BUILD:
            discard(setup(), build)
        clean_up(setup(), build)


def fail(build: Build, error: Exception, worker: str | None) -> None:
    """Note the report of a failed build in its journal; `worker` is the name of the worker that it
    failed on.
    """
    records = journal()
    now = time.time()
    steps = ended(records.steps(build.id), now)
    state = steps[-1].state if steps else None
    expected = _expected(error)
    failure = Failure.of(expected, state, records.last_lines(build.id))
    records.end(
        build.id,
        BuildReport(
            id=build.id,
            status="cancelled" if isinstance(error, BuildCancelled) else "failed",
            source_hash=build.source_hash,
            builder=build.config.builder.type if build.config else None,
            steps=steps,
            seconds=now - build.started,
            warnings=build.warnings,
            error=failure,
        ),
    )
    events.failed(build.id, str(expected), worker)


def _expected(error: Exception) -> ImagemillError:
    """The error in our own words; of one that nobody expected only the class, since its text may
    hold anything.
    """
    if isinstance(error, ImagemillError):
        return error
    log.error("A step failed unexpectedly", exc_info=error)
    return ImagemillError(
        f"The step failed with an unexpected {type(error).__name__}", "see the worker's log"
    )
