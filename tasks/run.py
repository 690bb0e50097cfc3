"""One run of one step: its claim on the step, its log, its deadline, and how it ends."""

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Self, TypeVar

from celery import Task
from celery.exceptions import Ignore, Reject

from imagemill.errors import (
    BuildCancelled,
    ImagemillError,
    OperatorError,
    TransientError,
    UserError,
)
from imagemill.messages import Build, Failure, State
from imagemill.state.journal import LOST, Entered
from imagemill.state.lock import ImageLock
from imagemill.state.records import Claim
from tasks import pipeline, shutdown
from tasks.pipeline import AFTER, FIRST, LAST, Next
from tasks.retries import pause
from tasks.settings import ConfigChangedError, journal, records, setup
from tasks.signals import step_ended, step_redelivered, step_retried

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_LOG_FLUSH_SECONDS = 0.1
_AMOUNT_SECONDS = 0.9
_CANCEL_CHECK_SECONDS = 0.5
_UNSENT_LINES = 5000

_LIGHT_SECONDS = 5.0
"""For how long a light step goes on in a worker that has been told to end."""

_LONGEST_PAUSE = 5.0
MOST_CHANGES = 12
"""How often a build begins anew because the launch config is another one: for about a minute, in
which workers with a new config take the places of the others.
"""

_PATIENCE_SECONDS = 600.0
"""For how long the end of a step waits for a Redis that is away."""


class Superseded(Ignore):
    """Somebody else has the step by now: whatever this run did is of no use."""


class GivenBack(Ignore):
    """The worker ends: somebody else is to have the step."""


class Run:
    """What a step and its adapters may ask of the chain (a `ports.Progress`).

    `entered` is what the journal answered when the step began; `worker` is the name of the worker.
    """

    def __init__(self, worker: str, step: str, state: State, claim: Claim, timeout: float) -> None:
        self.setup = setup()
        self.worker = worker
        self.step = step
        self.state = state
        self.claim = claim
        self.build_id = claim.build.id
        self.warnings: list[str] = []
        self.traceparent: str | None = None
        self._shown = {"worker": worker, "source_hash": claim.build.source_hash}
        self._journal = journal()
        self._build_deadline = claim.build.deadline or time.time() + self.setup.build_timeout
        self._timeout = timeout
        self._deadline = min(time.time() + timeout, self._build_deadline)
        self._lock: ImageLock | None = None
        self._unsent: deque[str] = deque(maxlen=_UNSENT_LINES)
        self._flushed = self._checked = self._told = 0.0
        self._amount = ""
        self._begun = time.monotonic()

    @classmethod
    def claimed(cls, task: Task[Any, Any], build: str, turn: int, step: str) -> Self | None:
        """Take the step; None if it is not its turn, or somebody runs it."""
        worker = task.request.hostname or ""
        state, limit = task.state, getattr(setup(), task.timeout)  # type: ignore[attr-defined]
        claim = records().claim(build, turn, step, f"{worker}:{os.getpid()}", state, worker=worker)
        return cls(worker, step, state, claim, limit) if claim else None

    @property
    def entered(self) -> Entered:
        """What was known of the build when the step began."""
        return self.claim.entered

    def begin(self) -> None:
        """Raise why the step may not run: the build was cancelled, its time is up, or the step has
        cost too many workers their lives. The last step always may.
        """
        self._checked = time.monotonic()
        if self.step == LAST:
            return
        if self.entered.cancelled:
            raise _cancelled()
        if self.claim.deaths >= self.setup.max_deliveries:
            raise OperatorError(
                f"The workers died {self.claim.deaths} times in this step",
                "see the workers' logs and memory: most often the step needs more memory than its worker may use",
            )
        if self.claim.deaths:
            self._begin_anew()
        self.check()

    def _begin_anew(self) -> None:
        """Give the build its time anew: what its dead worker used is not its fault."""
        step_redelivered.send(sender=None, step=self.step)
        log.warning("The worker that had this step is gone: it begins anew")
        self.log("The worker that had this step was lost; it begins anew")
        build = self.claim.build
        left = build.request.timeout or self.setup.build_timeout
        self._build_deadline = time.time() + left
        self._deadline = min(time.time() + self._timeout, self._build_deadline)
        self.claim.build = build.knowing(deadline=self._build_deadline)

    def enter(self, state: State) -> None:
        """Note the state, unless the build has been cancelled or its time is up."""
        self.state = state
        self.flush()
        entered = self._journal.enter(self.build_id, state, time.time(), **self._shown)
        self._checked = time.monotonic()
        if entered.cancelled:
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

    def amount(self, text: str) -> None:
        """Show how far the step has come, once a second at most; what is lost is said again. That it
        is over is said at once, where anything is shown.
        """
        due = time.monotonic() - self._told > _AMOUNT_SECONDS if text else self._amount
        if not due:
            return
        self._told, self._amount = time.monotonic(), text
        with suppress(*LOST):
            self._journal.tell(self.build_id, text)

    def check(self) -> None:
        if self.claim.lost:
            raise Superseded("Another worker has taken this step over")
        ending = shutdown.seconds()
        if ending is not None and ending >= self._grace:
            raise GivenBack("The worker ends")
        if time.time() > self._deadline:
            raise self.out_of_time()
        if time.monotonic() - self._checked > _CANCEL_CHECK_SECONDS:
            self._checked = time.monotonic()
            self.flush()
            self._check_cancelled()
        if self._lock and self._lock.lost:
            raise TransientError(
                "The build lost its lock on the image", "its worker was stopped for too long"
            )

    def out_of_time(self) -> ImagemillError:
        """Return what is said of a step that did not end in its time."""
        return UserError(
            f"The build ran out of time while {self.state.value.lower()}",
            "see in the log what was slow, or ask for a longer timeout, up to the workers' IMAGEMILL_BUILD_TIMEOUT",
        ).about("timeout")

    def remaining(self) -> float:
        return max(0.0, self._deadline - time.time())

    def flush(self) -> None:
        """Send the log lines that have gathered; they wait where Redis is away, since a build
        outlives that.
        """
        self._flushed = time.monotonic()
        if not self._unsent:
            return
        lines, part = list(self._unsent), self.claim.build
        try:
            self._journal.log(self.build_id, lines)
            if part.part_of:
                named = [f"{part.request.platform}: {line}" for line in lines]
                self._journal.log(part.part_of, named)
        except LOST as error:
            log.warning("Log lines of the build wait for Redis: %s", error)
        else:
            self._unsent.clear()

    def holding(self, lock: ImageLock) -> AbstractContextManager[None]:
        """Keep the lock while the block runs, and for the build's next step after it."""
        self._lock = lock
        return lock.renewed(afterwards=self._build_deadline - time.time())

    def go_on(self, outcome: Build | Next) -> None:
        """Write what was learned and which step is due now, then send its message."""
        step_ended.send(sender=None, step=self.step, seconds=time.monotonic() - self._begun)
        following = outcome if isinstance(outcome, Next) else Next(AFTER[self.step], outcome)
        self._advance(following)

    def retry(self, error: TransientError) -> None:
        """Have the step tried again in a while; raise the error once tries or time are used up."""
        tried, took = self.claim.tries, time.monotonic() - self._begun
        remaining = max(0.0, self._build_deadline - time.time())
        wait = pause(error, tried, self.setup, took=took, remaining=remaining)
        if wait is None:
            raise error
        step_retried.send(sender=None, step=self.step)
        self._show_retry(error, tried + 1, wait)
        self._advance(Next(self.step, self.claim.build, wait), tried + 1)

    def begin_by_another_config(self, error: ConfigChangedError) -> None:
        """Have the build begin anew, by the launch config as it is now; raise the error where it
        changes with the worker, and of parts, whose images are to go together.
        """
        build = self.claim.build
        if build.part_of or build.platforms or build.changes >= MOST_CHANGES:
            raise error
        self.log(f"{error.message}: the build begins anew")
        anew = Build(
            id=build.id,
            request=build.request,
            started=build.started,
            tenant=build.tenant,
            in_line=build.in_line,
            deadline=build.deadline,
            changes=build.changes + 1,
            locked=build.locked,
        )
        self._advance(Next(FIRST, anew, self.setup.wait_interval if build.changes else 0))

    def fail(self, error: BaseException) -> None:
        """Have the build go on with the report of its failure."""
        expected = _expected(error)
        lines = _patiently(lambda: self._journal.last_lines(self.build_id))
        failure = Failure.of(expected, self.state, lines)
        self._advance(Next(LAST, self.claim.build.knowing(failure=failure)))

    def _advance(self, following: Next, tries: int = 0) -> None:
        step, build, delay = following.step, following.build, following.delay
        awaited = [following.awaited] if following.awaited else []
        queue = pipeline.queue(step, build)
        due = _patiently(
            lambda: records().advance(self.claim, build, step, queue, tries=tries, delay=delay)
        )
        if due is None:
            log.warning("Another worker has taken this step over: what was learned is dropped")
            return
        if delay:
            _patiently(lambda: pipeline.send_later(due, delay, *awaited))
        else:
            pipeline.send(due)

    def _show_retry(self, error: TransientError, attempt: int, wait: float) -> None:
        log.warning("%s; trying again in %.1f s, for the %d. time", error, wait, attempt)
        hint = f" ({error.hint})" if error.hint and attempt == 1 else ""
        self.log(f"{error.message}; trying again in {wait:.1f} s{hint}")
        self.flush()
        retry = {"error": error.message, "attempt": attempt, "seconds": wait}
        with suppress(*LOST):
            self._journal.show(self.build_id, self.state, time.time(), **self._shown, retry=retry)

    @property
    def _grace(self) -> float:
        """For how many seconds the step goes on in a worker that ends: a Job goes on without us,
        and an engine's build begins anew elsewhere.
        """
        config = self.claim.build.config
        if self.step != "build" or config is None:
            return _LIGHT_SECONDS
        return 0 if config.builder == "kaniko" else math.inf

    def give_back(self) -> None:
        """Free the step for another worker, and tell that it is due."""
        self.log("The worker ends: another one goes on with this step")
        self.flush()
        self._advance(Next(self.step, self.claim.build), self.claim.tries)

    def _check_cancelled(self) -> None:
        try:
            wanted = self._journal.is_cancelled(self.build_id)
        except LOST as error:
            # The wish is asked for again in a moment; until then the build goes on.
            log.warning("Could not ask whether the build is cancelled: %s", error)
            return
        if wanted:
            raise _cancelled()


@contextmanager
def waiting_for_redis() -> Iterator[None]:
    """Give the message back, where nothing has been done about it yet and Redis is away."""
    try:
        yield
    except LOST as error:
        log.warning("The message goes back, since Redis went away: %s", error)
        raise Reject(f"Redis went away: {error}", requeue=True) from error


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """Return what Redis answers, once it does; what a step has done is not lost to a restart."""
    end, pause = time.monotonic() + _PATIENCE_SECONDS, 0.1
    while True:
        try:
            return ask()
        except LOST as error:
            if time.monotonic() > end:
                raise
            log.warning("The end of the step waits for Redis: %s", error)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _expected(error: BaseException) -> ImagemillError:
    """Return the error in our own words; of one that nobody expected only the class, since its text
    may hold anything.
    """
    if isinstance(error, ImagemillError):
        return error
    log.error("A step failed unexpectedly", exc_info=error)
    return ImagemillError(
        f"The step failed with an unexpected {type(error).__name__}", "see the worker's log"
    )


def _cancelled() -> BuildCancelled:
    return BuildCancelled("The build was cancelled", "submit it again to build it")
