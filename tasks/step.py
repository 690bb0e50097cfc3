"""The one decorator of all steps: state, log context, deadline, cancel, retries, bounded
redelivery.

A step is a function `(run, build) -> Build | Signature`: it returns what it learned as a copy of
the message, or what the chain is to go on with instead of what was planned. The last step returns
the report.
"""

import logging
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, cast

from celery import Task, shared_task
from celery.canvas import Signature
from celery.exceptions import Ignore, Reject

from imagemill.errors import (
    BuildCancelled,
    ImagemillError,
    OperatorError,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.messages import Build, Message, State
from imagemill.names import BUILD
from imagemill.state.journal import LOST, Entered
from imagemill.state.lock import ImageLock
from imagemill.time_limits import time_limit
from tasks.cleanup import clean_up, discard
from tasks.log_context import bound
from tasks.replaceable import Replaceable
from tasks.settings import Setup, journal, setup

log = logging.getLogger(__name__)

_LOG_FLUSH_SECONDS = 0.1
_CANCEL_CHECK_SECONDS = 0.5
_UNSENT_LINES = 5000

StepFunction = Callable[["Run", Build], Message | Signature]


class Run:
    """One run of one step: what the step and its adapters may ask of the chain (a
    `ports.Progress`).

    `entered` is what the journal answered when the step began; `worker` is the name of the worker.
    """

    entered: Entered

    def __init__(
        self, task: Task[Any, Any], build: Build, state: State, setup: Setup, timeout: float
    ) -> None:
        self.setup = setup
        self.worker: str = task.request.hostname or ""
        self.build_id = build.id
        self._shown = {"worker": self.worker, "source_hash": build.source_hash}
        self._journal = journal()
        self._build_deadline = build.deadline or time.time() + self.setup.build_timeout
        self._deadline = min(time.time() + timeout, self._build_deadline)
        self.state = state
        self.warnings: list[str] = []
        self._lock: ImageLock | None = None
        self._unsent: deque[str] = deque(maxlen=_UNSENT_LINES)
        self._flushed = self._checked = 0.0

    def enter(self, state: State) -> None:
        """Note the state, unless the build has been cancelled or its time is up."""
        self.state = state
        self.flush()
        self.entered = self._journal.enter(self.build_id, state, time.time(), **self._shown)
        self._checked = time.monotonic()
        if self.entered.cancelled:
            raise _cancelled()
        self.check()

    def log(self, line: str) -> None:
        self._unsent.append(line)
        if time.monotonic() - self._flushed > _LOG_FLUSH_SECONDS:
            self.flush()

    def warn(self, line: str) -> None:
        """Log the line; the step is to add `warnings` to what it learns."""
        self.warnings.append(line)
        self.log(f"Warning: {line}")

    def check(self) -> None:
        if time.time() > self._deadline:
            raise UserError(
                f"The build ran out of time while {self.state.value.lower()}",
                "see in the log what was slow, or ask for a longer timeout, up to the workers' IMAGEMILL_BUILD_TIMEOUT",
            )
        if time.monotonic() - self._checked > _CANCEL_CHECK_SECONDS:
            self._checked = time.monotonic()
            self.flush()
            self._check_cancelled()
        if self._lock and self._lock.lost:
            raise TransientError(
                "The build lost its lock on the image", "its worker was stopped for too long"
            )

    def remaining(self) -> float:
        return max(0.0, self._deadline - time.time())

    def flush(self) -> None:
        """Send the log lines that have gathered; they wait where Redis is away, since a build
        outlives that.
        """
        self._flushed = time.monotonic()
        if not self._unsent:
            return
        try:
            self._journal.log(self.build_id, list(self._unsent))
        except LOST as error:
            log.warning("Log lines of the build wait for Redis: %s", error)
        else:
            self._unsent.clear()

    def holding(self, lock: ImageLock) -> AbstractContextManager[None]:
        """Keep the lock while the block runs, and for the build's next step after it."""
        self._lock = lock
        return lock.renewed(afterwards=self._build_deadline - time.time())

    def retrying(self, error: TransientError, attempt: int, wait: float) -> None:
        """Say in the log and in the state that the step will be tried again."""
        log.warning("%s; try %d of %d in %.1f s", error, attempt, self.setup.max_retries, wait)
        self.log(
            f"{error.message}; trying again in {wait:.1f} s ({attempt} of {self.setup.max_retries})"
        )
        self.flush()
        retry = {"error": error.message, "attempt": attempt, "seconds": wait}
        with suppress(*LOST):
            self._journal.show(self.build_id, self.state, time.time(), **self._shown, retry=retry)

    def _check_cancelled(self) -> None:
        try:
            wanted = self._journal.is_cancelled(self.build_id)
        except LOST as error:
            # The wish is asked for again in a moment; until then the build goes on.
            log.warning("Could not ask whether the build is cancelled: %s", error)
            return
        if wanted:
            raise _cancelled()


def _cancelled() -> BuildCancelled:
    return BuildCancelled("The build was cancelled", "submit it again to build it")


def step(
    state: State, *, timeout: str = "quick_timeout", announced: bool = False, **options: Any
) -> Callable[[StepFunction], Task[Any, Any]]:
    """Make a Celery task `imagemill.<function's name>` of a step.

    `timeout` names the limit in `Setup`; `announced` says whether Flower is told of the state.
    """

    def decorate(function: StepFunction) -> Task[Any, Any]:
        defaults = {
            "ignore_result": True,
            "Request": "tasks.events:StepRequest",
            # What a step returns is the whole message: Celery would print it into logs and events.
            "resultrepr_maxsize": 1,
        }

        @shared_task(
            bind=True,
            base=Replaceable,
            name=f"imagemill.{function.__name__}",
            throws=(ImagemillError,),
            state=state,
            announced=announced,
            max_retries=None,
            **{**defaults, **options},
        )
        def task(self: Replaceable, message: dict[str, Any]) -> dict[str, Any] | None:
            build = Build.load(message)
            with bound(build=build.id, step=function.__name__):
                if (self.request.delivery_info or {}).get("redelivered"):
                    build = _redelivered(self, build)
                limits = setup()
                run = Run(self, build, state, limits, getattr(limits, timeout))
                outcome = _run(self, function, run, build)
            if isinstance(outcome, Message):
                return outcome.dump()
            self.give_way(outcome)
            return None

        return cast("Task[Any, Any]", task)

    return decorate


def _run(
    task: Task[Any, Any], function: StepFunction, run: Run, build: Build
) -> Message | Signature:
    try:
        run.enter(run.state)
        with time_limit(run.remaining()):
            return function(run, build)
    except TransientError as error:
        raise _retry(task, run, error) from error
    except LOST as error:
        lost = ServiceUnreachable(
            f"Redis went away: {error}", "see that the server of IMAGEMILL_BACKEND is up"
        )
        raise _retry(task, run, lost) from error
    finally:
        run.flush()


def _redelivered(task: Task[Any, Any], build: Build) -> Build:
    """The message of a worker that died: with its time anew, but not of one that kills each worker
    that takes it.
    """
    request, limits = task.request, setup()
    try:
        ended = journal().report(build.id) is not None
        deliveries = (
            0 if ended else journal().deliveries(f"{request.id}:{task.name}:{request.retries}")
        )
    except LOST as error:
        log.warning("Redelivered, but Redis went away: %s", error)
        # Back into the queue, where it stays what it is: a message that was delivered before.
        raise Reject(f"Redis went away: {error}", requeue=True) from error
    if ended:
        log.info(
            "Redelivered, but the build has ended already: its worker may have died before it had cleaned up"
        )
        if task.name == BUILD:
            discard(limits, build)
        clean_up(limits, build)
        raise Ignore("The build has ended already")
    if deliveries >= limits.max_deliveries:
        raise OperatorError(
            f"The workers died {deliveries} times in this step",
            "see the workers' logs and memory: most often the step needs more memory than its worker may use",
        )
    log.warning("Redelivered: the worker that had this step is gone")
    return build.knowing(deadline=time.time() + (build.request.timeout or limits.build_timeout))


def _retry(task: Task[Any, Any], run: Run, error: TransientError) -> Exception:
    """The exception that makes Celery try again later; the error itself once the tries or the time
    are used up.
    """
    tried, limit = task.request.retries, run.setup.max_retries
    wait = error.retry_after
    if wait is None:
        wait = random.uniform(
            0, min(run.setup.retry_backoff_max, run.setup.retry_backoff * 2**tried)
        )
    if error.exhausted or tried >= limit or wait >= run.remaining():
        return error
    run.retrying(error, tried + 1, wait)
    hidden: dict[str, Any] = {"argsrepr": f"({run.build_id})", "kwargsrepr": "{}"}
    return task.retry(exc=error, countdown=wait, throw=False, **hidden)
