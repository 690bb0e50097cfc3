"""For services and the command line: submit builds, follow them, and get their reports.

    with Client(broker="redis://localhost:6379/0") as client:
        build = client.submit(source="/src/project", destination="registry.example.com/team/model")
        print(client.wait(build).raise_for_status().image)

The task is called by its name, so that no worker code is needed here. Every method raises
`ServiceUnreachable` if broker or result backend does not answer.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

from celery import Celery
from celery.exceptions import CeleryError
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from imagemill.errors import ImagemillError, ServiceUnreachable, UserError
from imagemill.messages import (
    BuildReport,
    BuildRequest,
    Failure,
    Message,
    State,
    StepTime,
    UploadPlan,
)
from imagemill.names import BUILD_IMAGE, BUILD_KEEP_SECONDS, LIGHT, PLAN_UPLOAD
from imagemill.state.journal import Event, Journal, connect

if TYPE_CHECKING:
    from imagemill.state.input_records import InputRecords
    from imagemill.why.record import InputRecord

_READ_SECONDS = 1.0
"""How long one read of a journal waits for something new."""

_BACKEND_CHECK_SECONDS = 5.0
"""How often who waits asks the result backend too, in case that a build ended without a report."""


class BuildStatus(Message):
    """Where a build is now."""

    id: str
    state: State | Literal["SUCCEEDED", "FAILED", "CANCELLED"]
    steps: tuple[StepTime, ...] = ()
    cancelling: bool = False
    report: BuildReport | None = None

    @classmethod
    def ended(cls, report: BuildReport) -> "BuildStatus":
        names: dict[str, Literal["SUCCEEDED", "FAILED", "CANCELLED"]] = {
            "succeeded": "SUCCEEDED",
            "failed": "FAILED",
            "cancelled": "CANCELLED",
        }
        return cls(id=report.id, state=names[report.status], steps=report.steps, report=report)


class Client:
    """A connection to an Imagemill service. Connects on first use; safe to share between threads.

    `broker` and `backend` are Celery's URLs; the backend is Redis, and by default the broker.
    `key_prefix` is the workers' IMAGEMILL_KEY_PREFIX. A URL that cannot be one is a `UserError`.
    """

    def __init__(self, broker: str, backend: str | None = None, *, key_prefix: str = "") -> None:
        _check_scheme(
            "broker",
            broker,
            "redis://HOST:6379/0, rediss://…, amqp://USER:PASSWORD@HOST:5672/ or amqps://…",
        )
        backend = backend or broker
        _check_scheme("backend", backend, "redis://HOST:6379/0 or rediss://…")
        if not backend.startswith(("redis", "unix")):
            raise UserError(
                "Results are kept in Redis", "give its URL as backend, or set IMAGEMILL_BACKEND"
            )
        self.app = Celery("imagemill-client", broker=broker, backend=backend, set_as_current=False)
        self.app.conf.update(_client_configuration(broker, key_prefix))
        self._key_prefix = key_prefix
        self._journal = open_journal(self.app, backend, key_prefix, patience=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the result backend; at the end of a `with` block this happens by
        itself.

        Those to the broker are in Kombu's pool, which all of the process share.
        """
        results: Any = self.app.backend
        results.result_consumer.stop()
        results.client.close()
        self._journal.redis.close()
        self.app.close()

    def submit(self, request: BuildRequest | None = None, **fields: Any) -> str:
        """Ask for a build, by a `BuildRequest` or by its fields; returns the build's id at once.

        A field that is wrong is a `UserError`. A source may be any path; workers elsewhere want an
        absolute one.
        """
        request = request or BuildRequest.parse(fields)
        build = uuid.uuid4().hex
        with _reachable():
            self._journal.enter(build, State.QUEUED, time.time())
            self.app.send_task(
                BUILD_IMAGE,
                kwargs={"request": request.dump()},
                task_id=build,
                queue=LIGHT,
                # Build arguments are for the worker, not for whoever looks at the broker's events.
                argsrepr="()",
                kwargsrepr="{}",
                retry_policy={
                    "max_retries": 3,
                    "interval_start": 0.1,
                    "interval_step": 0.3,
                    "interval_max": 1,
                },
            )
        return build

    def wait(self, build: str, timeout: float | None = None) -> BuildReport:
        """The report, once the build has ended, however it ended; `TimeoutError` after `timeout`
        seconds.
        """
        for event in self.events(build, timeout=timeout):
            if event.report is not None:
                return event.report
        raise TimeoutError(f"The build {build} has not ended after {timeout} s")

    def status(self, build: str) -> BuildStatus:
        """Where the build is; `UserError` if nothing is known of it."""
        with _reachable():
            report = self._report(build)
            if report is not None:
                return BuildStatus.ended(report)
            steps = self._known(build)
            return BuildStatus(
                id=build,
                state=steps[-1].state,
                steps=steps,
                cancelling=self._journal.is_cancelled(build),
            )

    def logs(self, build: str, *, follow: bool = False) -> Iterator[str]:
        """The lines of the build's log so far; with `follow` also those to come, until the build
        ends.
        """
        for event in self.events(build, follow=follow):
            if event.line is not None:
                yield event.line

    def events(
        self, build: str, *, follow: bool = True, timeout: float | None = None
    ) -> Iterator[Event]:
        """States, log lines and, last, the report. Ends with the report, after `timeout` seconds,
        or, unless `follow`, with what there is now.
        """
        end = time.monotonic() + timeout if timeout is not None else None
        position, asked = "0", time.monotonic()
        with _reachable():
            self._known(build)
            while True:
                events = self._journal.events(build, position, self._patience(follow, end))
                for event in events:
                    yield event
                    if event.report is not None:
                        return
                    position = event.position
                if not events and (not follow or (end is not None and time.monotonic() >= end)):
                    return
                if not events and time.monotonic() - asked > _BACKEND_CHECK_SECONDS:
                    asked = time.monotonic()
                    if (report := self._result(build)) is not None:
                        yield Event(position, time.time(), report=report)
                        return

    def plan_upload(self, request: BuildRequest, timeout: float | None = None) -> UploadPlan:
        """Where a source is to go that the workers cannot read; see `imagemill.uploads`.

        Like a build, the question waits until a worker takes it; `ServiceUnreachable` if none has
        for `timeout` seconds. The error of a worker that cannot say it is raised here.
        """
        with _reachable():
            self._journal.redis.ping()  # Celery tries for long, and then tells what it has tried
            asked: AsyncResult[Any] = self.app.send_task(
                PLAN_UPLOAD,
                kwargs={"request": request.dump()},
                queue=LIGHT,
                argsrepr="()",
                kwargsrepr="{}",
            )
            try:
                return UploadPlan.load(asked.get(timeout=timeout))
            except CeleryTimeout:
                raise ServiceUnreachable(
                    f"No worker said within {timeout} s where sources are to be put",
                    "see that workers of the queue imagemill run; with --no-upload they read the source themselves",
                ) from None
            except (
                RuntimeError
            ) as error:  # Celery's, when it has tried often enough to reach its result backend
                raise ConnectionError(str(error)) from None
            finally:
                asked.forget()

    def source_hash(self, build: str) -> str:
        """The hash of what the build makes its image from, once it is known; `UserError` if the
        build has none.
        """
        with _reachable():
            report = self._report(build)
            found = report.source_hash if report else self._shown(build).get("source_hash")
            if found:
                return found
            state = "has ended" if report else f"is {self._known(build)[-1].state}"
        raise UserError(
            f"The build {build} {state}, and has no source hash",
            "it failed before its source was hashed, or its source is an image"
            if report
            else "ask again once its source is hashed",
        )

    def inputs(self, source_hash: str) -> "InputRecord":
        """The record of what the image with this source hash is made from; `UserError` if there is
        none (any more).
        """
        with _reachable():
            record = self._inputs.find(source_hash)
        if record is None:
            raise UserError(
                f"What the image {source_hash} was made from is not known any more",
                f"records are kept for {BUILD_KEEP_SECONDS // 3600} hours after they were last used;"
                " give the source instead",
            )
        return record

    def cancel(self, build: str) -> None:
        """Have the build stop; returns at once. A build that has ended stays as it is."""
        with _reachable():
            if self._report(build) is None:
                self._known(build)
                self._journal.ask_to_cancel(build)

    def workers(self, timeout: float = 1.0) -> dict[str, list[str]]:
        """The workers that answer within `timeout` seconds: name → queues."""
        with _reachable():
            answers = self.app.control.inspect(timeout=timeout).active_queues() or {}
        return {
            worker: sorted(queue["name"] for queue in queues) for worker, queues in answers.items()
        }

    @cached_property
    def _inputs(self) -> "InputRecords":
        from imagemill.state.input_records import (
            InputRecords,  # it brings all that reads sources, which few clients do
        )

        return InputRecords(self._journal.redis, self._key_prefix)

    def _known(self, build: str) -> tuple[StepTime, ...]:
        steps = self._journal.steps(build)
        if not steps:
            raise UserError(
                f"Nothing is known of a build {build}",
                "builds are kept for a day; one that was sent without this client shows once a worker takes it",
            )
        return steps

    def _report(self, build: str) -> BuildReport | None:
        return self._journal.report(build) or self._result(build)

    def _result(self, build: str) -> BuildReport | None:
        """What the result backend says of a build that has ended."""
        result: AsyncResult[Any] = AsyncResult(build, app=self.app)
        state, value = result.state, result.result
        if state == "SUCCESS" and isinstance(value, dict):
            return BuildReport.load(value)
        if state == "FAILURE":
            return BuildReport(id=build, status="failed", error=_failure(value))
        return None

    def _shown(self, build: str) -> dict[str, Any]:
        """What the result backend says of a build that runs (`Journal.enter`)."""
        shown = AsyncResult(build, app=self.app).info
        return shown if isinstance(shown, dict) else {}

    @staticmethod
    def _patience(follow: bool, end: float | None) -> float:
        if not follow:
            return 0
        return (
            _READ_SECONDS if end is None else max(0.001, min(_READ_SECONDS, end - time.monotonic()))
        )


def _check_scheme(what: str, url: str, forms: str) -> None:
    """Kombu takes a URL without a scheme for the name of a transport. It is not repeated: it may
    hold a password.
    """
    if "://" not in url:
        raise UserError(
            f"The {what}'s URL has no scheme",
            f"write {forms} as {what}, or into IMAGEMILL_{what.upper()}",
        )


def open_journal(app: Celery, backend: str, key_prefix: str, patience: int = 6) -> Journal:
    """The journals that lie beside the results of the application."""
    results: Any = app.backend
    return Journal(connect(backend, patience=patience), key_prefix, results.get_key_for_task)


def _failure(error: object) -> Failure:
    if isinstance(error, ImagemillError):
        return Failure.of(error)
    return Failure(kind=type(error).__name__, message=str(error), hint="see the workers' log")


def _client_configuration(broker: str, key_prefix: str) -> dict[str, Any]:
    configuration: dict[str, Any] = {
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_backend_transport_options": {"global_keyprefix": key_prefix},
        "broker_connection_timeout": 5,
        "broker_transport_options": {"confirm_publish": True},
    }
    if not broker.startswith("amqp"):
        configuration["broker_transport_options"] = {
            "global_keyprefix": key_prefix,
            "socket_connect_timeout": 5,
        }
    return configuration


@contextmanager
def _reachable() -> Iterator[None]:
    """Say in our words that broker or result backend is away."""
    try:
        yield
    except (OperationalError, RedisError, CeleryError, ConnectionError) as error:
        raise ServiceUnreachable(
            f"The broker or the result backend does not answer: {_without_password(error)}",
            "see that IMAGEMILL_BROKER and IMAGEMILL_BACKEND are right and that their servers are up",
        ) from None


def _without_password(error: Exception) -> str:
    """The error's text up to a URL, which may hold a password."""
    return str(error).split("://")[0]
