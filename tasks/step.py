"""The one decorator of all steps: a message becomes a run of a step, if it is this step's turn.

A step is a function `(run, work) -> Build | Next | BuildReport`: it returns what it learned as a
copy of the message, or with which step the build goes on instead of the one that was planned. The
last step returns the report.
"""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, cast

from celery import Task, shared_task
from celery.exceptions import Ignore

from imagemill.errors import ImagemillError, ServiceUnreachable, TransientError
from imagemill.messages import Build, BuildReport, Failure, State
from imagemill.names import step_name, task_name
from imagemill.state.journal import LOST
from imagemill.state.seal import BrokenSealError
from imagemill.time_limits import time_limit
from tasks import log_context, tracing
from tasks.pipeline import LAST, Next, sent, wait_for_image
from tasks.run import GivenBack, Run, waiting_for_redis
from tasks.settings import ConfigChangedError, journal, leases, records
from tasks.watchdog import GRACE_SECONDS, OutOfTime, watchdog
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

Outcome = Build | Next | BuildReport
StepFunction = Callable[[Run, Workspace], Outcome]


class Step(Task[Any, Any]):
    """The task of a step. Celery calls its hooks; what runs is at hand as `request.run`."""

    state: State
    announced: bool
    timeout: str

    def on_failure(
        self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: object
    ) -> None:
        """Have the build go on with the report of its failure, whatever a step raised."""
        run: Run | None = getattr(self.request, "run", None)
        if run is not None and run.step != LAST:
            run.fail(exc)

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: object
    ) -> None:
        """Note that the build has ended, once Celery has stored its result."""
        run: Run | None = getattr(self.request, "run", None)
        if run is not None and run.step == LAST:
            records().finish(run.build_id)

    def begin(self, message: dict[str, Any]) -> Run:
        """Take the step that the message is about; `Ignore` if it is not its turn, or no worker
        sent the message.
        """
        try:
            due = sent(message, step_name(self.name))
        except BrokenSealError:
            log.warning("A message that no worker sent is passed over: %s", self.name)
            raise Ignore("No worker sent this") from None
        log_context.bind(build=due.build, step=due.step)
        try:
            with waiting_for_redis():
                run = Run.claimed(self, due.build, due.turn, due.step)
        except BrokenSealError as error:
            self._end(due.build, error)
            raise Ignore("No worker wrote the record") from None
        if run is None:
            log.info("A message is passed over: it is not this step's turn, or somebody has it")
            raise Ignore("It is not this step's turn")
        self.request.update(run=run)
        return run

    def _end(self, build: str, error: BrokenSealError) -> None:
        """End a build whose record somebody else wrote: nothing of it can be believed."""
        log.error("%s: the build ends", error)
        report = BuildReport(id=build, status="failed", error=Failure.of(error, self.state))
        with waiting_for_redis():
            journal().end(build, report)
            self.backend.mark_as_failure(build, error)
            records().finish(build)


_OPTIONS = {
    "ignore_result": True,
    "Request": "tasks.events:StepRequest",
    # What a step returns is nobody's: Celery would print it into logs and events.
    "resultrepr_maxsize": 1,
}


def step(
    state: State, *, timeout: str = "quick_timeout", announced: bool = False, **options: Any
) -> Callable[[StepFunction], Task[Any, Any]]:
    """Make a Celery task `imagemill.<function's name>` of a step.

    `timeout` names the limit in `Setup`; `announced` says whether Flower is told of the state.
    """

    def decorate(function: StepFunction) -> Task[Any, Any]:
        @shared_task(
            bind=True,
            base=Step,
            name=task_name(function.__name__),
            throws=(ImagemillError,),
            state=state,
            announced=announced,
            timeout=timeout,
            **{**_OPTIONS, **options},
        )
        def task(self: Step, message: dict[str, Any]) -> dict[str, Any] | None:
            run = self.begin(message)
            build = run.claim.build
            with (
                leases().renewed(run.claim),
                tracing.span(run.step, build.id, build.traceparent) as run.traceparent,
            ):
                outcome = _run(function, run)
                if not isinstance(outcome, BuildReport):
                    run.go_on(outcome)
                    return None
            if outcome.error is not None:
                raise outcome.error.exception()
            return outcome.dump()

        return cast("Task[Any, Any]", task)

    return decorate


def alone(make: StepFunction) -> StepFunction:
    """Have a step that makes the image do so once, under the lock on it: where another build has
    that, the build waits for it.
    """

    @wraps(make)
    def under_lock(run: Run, work: Workspace) -> Outcome:
        if work.build.digest is not None:
            return work.build
        lock = work.lock
        if not lock.acquire():
            return wait_for_image(work.build, run.setup.wait_interval)
        with run.holding(lock):
            return make(run, work)

    return under_lock


def _run(function: StepFunction, run: Run) -> Outcome:
    try:
        run.begin()
        seconds = run.remaining()
        with time_limit(seconds), watchdog().watching(seconds + GRACE_SECONDS):
            return function(run, Workspace(run.setup, run.claim.build))
    except OutOfTime:
        raise run.out_of_time() from None
    except GivenBack:
        run.give_back()
        raise
    except TransientError as error:
        run.retry(error)
    except ConfigChangedError as error:
        run.begin_by_another_config(error)
    except LOST as error:
        lost = f"Redis went away: {error}"
        run.retry(ServiceUnreachable(lost, "see that the server of IMAGEMILL_BACKEND is up"))
    finally:
        run.flush()
    raise Ignore("It is tried again later")
