"""For services and the command line: submit builds, follow them, and get their reports.

    with Client(broker="redis://localhost:6379/0") as client:
        build = client.submit(source="/src/project", destination="registry.example.com/team/model")
        print(client.wait(build).raise_for_status().image)

The task is called by its name, so that no worker code is needed here. Every method raises
`ServiceUnreachable` if broker or result backend does not answer.

Importing this takes hardly longer than Celery and redis-py: what reads messages (pydantic), and all
of Celery that it does not load by itself, is imported when it is first used.
"""

from __future__ import annotations

import logging
import math
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, Self, TypeVar

import celery
from redis.exceptions import NoPermissionError, RedisError

from imagemill import connections, environment, tracing
from imagemill.errors import ImagemillError, PermissionDenied, ServiceUnreachable, UserError
from imagemill.names import BUILD_IMAGE, BUILD_KEEP_SECONDS, LIGHT, PLAN_UPLOAD

if TYPE_CHECKING:
    from celery.result import AsyncResult

    from imagemill.messages import (
        BuildReport,
        BuildRequest,
        BuildStatus,
        BuildSummary,
        Failure,
        StepTime,
        UploadPlan,
    )
    from imagemill.state.dead_letters import DeadLetter, DeadLetters
    from imagemill.state.input_records import InputRecords
    from imagemill.state.journal import Event, Journal
    from imagemill.state.presence import Presence
    from imagemill.why.record import InputRecord

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_READ_SECONDS = 1.0
"""How long one read of a journal waits for something new."""

_PAUSES = (0.2, 0.5, 1.0)
"""Seconds between tries to reach a service that is away; the last is that of all further tries."""

_FIRST_SECONDS = 2.0
"""How long a client waits for a service that it has not reached yet: a server that has just started
may break a connection off.
"""

_BACKEND_CHECK_SECONDS = 5.0
"""How often who waits asks the result backend too, in case that a build ended without a report."""


class Client:
    """A connection to an Imagemill service. Connects on first use; safe to share between threads.

    `broker` and `backend` are Celery's URLs; the backend is Redis, and by default the broker.
    `key_prefix` is the workers' IMAGEMILL_KEY_PREFIX. What is not given comes from IMAGEMILL_BROKER,
    IMAGEMILL_BACKEND and IMAGEMILL_KEY_PREFIX; a URL that cannot be one is a `UserError`.

    Where the workers tell tenants apart, `tenant` is the name of who asks, and `key` signs what is
    asked for; by default those of IMAGEMILL_TENANT and IMAGEMILL_TENANT_KEY.

    `wait`, `events`, `logs`, `status`, `cancel` and `workers` wait for `patience` seconds for a
    service that was there and is away, and tell `on_outage` so (by default the log).
    """

    def __init__(
        self,
        broker: str | None = None,
        backend: str | None = None,
        *,
        key_prefix: str | None = None,
        tenant: str | None = None,
        key: str | None = None,
        patience: float = 60,
    ) -> None:
        self._patience, self._reached = patience, False
        self.on_outage: Callable[[str], object] = log.warning
        if broker is None:
            broker = environment.variable("IMAGEMILL_BROKER")
            backend = backend or environment.variable("IMAGEMILL_BACKEND")
        if key_prefix is None:
            key_prefix = environment.variable("IMAGEMILL_KEY_PREFIX") or ""
        broker = connections.broker_url(broker)
        backend = connections.backend_url(backend, broker)
        self.app = celery.Celery(
            "imagemill-client",
            broker=broker,
            backend=backend,
            set_as_current=False,
            fixups=[],  # Django's is for workers, and imports them
        )
        self.app.conf.update(_client_configuration(broker, key_prefix))
        self._key_prefix = key_prefix
        self._tenant = tenant or environment.variable("IMAGEMILL_TENANT")
        self._key = key or environment.variable("IMAGEMILL_TENANT_KEY") or ""
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

    def submit(
        self,
        source: str | os.PathLike[str] | BuildRequest,
        destination: str | None = None,
        *,
        tags: Sequence[str] = (),
        dockerfile: str | None = None,
        dockerfile_text: str | None = None,
        target: str | None = None,
        build_args: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        platform: str | None = None,
        secrets: Sequence[str] = (),
        python: str | None = None,
        base_image: str | None = None,
        accelerator: str | None = None,
        entrypoint: Sequence[str] | None = None,
        system_packages: Sequence[str] = (),
        config: str | None = None,
        force: bool = False,
        no_cache: bool = False,
        pull: bool = False,
        cache_from: Sequence[str] = (),
        cache_to: str | None = None,
        ssh: Sequence[str] = (),
        graft: bool = True,
        timeout: float | None = None,
        revision: str | None = None,
        source_url: str | None = None,
    ) -> str:
        """Ask for a build; returns the build's id at once. A value that is wrong is a `UserError`.

        source       what to build: a folder or an archive that the workers can read, as an absolute
                     path (see docs/python.md), https://, s3://, gs://, git+https://HOST/PATH@REF,
                     docker-image://REFERENCE; or a whole `BuildRequest`, and nothing else then
        destination  repository to push to, without a tag; default: the workers' config's
        tags         tags to add beside the source hash
        dockerfile   path of the Dockerfile within the source; default: Dockerfile, or a generated one
        dockerfile_text
                     the Dockerfile itself, where the source has none that is meant
        target       stage to build, of a Dockerfile with several
        build_args   values of the Dockerfile's ARGs; not for secrets
        labels       labels of the image
        platform     such as linux/amd64, or linux/amd64,linux/arm64 for one image that is for both;
                     default: the config's, else the builder's own
        secrets      ids of build secrets, whose values are files on the workers
        python, base_image, accelerator, entrypoint, system_packages
                     of the Dockerfile that is generated for a source without one: version of Python,
                     base image, cuda or cuda12.4 …, what the image runs, word by word, what apt
                     installs
        config       name of a launch config in the workers' config folder
        force        build even if the image exists
        no_cache     build, and take nothing from the builder's cache of layers
        pull         build, and have the builder ask for base images anew
        cache_from, cache_to
                     images in registries, REGISTRY/REPOSITORY:TAG, whose layers the docker builder may
                     take, and where it puts them for later builds
        ssh          ids of SSH keys for RUN --mount=type=ssh, which are files on the workers
        graft        whether an image of which only code has changed may be made without a builder
        timeout      seconds that the build may take once it has started
        revision, source_url
                     for the image's labels: revision of the source, and where it is published
        """
        request = _request(**{name: value for name, value in locals().items() if name != "self"})
        build = uuid.uuid4().hex
        self._send(build, request)
        return build

    def wait(self, build: str, timeout: float | None = None) -> BuildReport:
        """Return the report, once the build has ended, however it ended; `TimeoutError` after
        `timeout` seconds.
        """
        for event in self.events(build, timeout=timeout):
            if event.report is not None:
                return event.report
        raise TimeoutError(f"The build {build} has not ended after {timeout} s")

    def status(self, build: str) -> BuildStatus:
        """Where the build is; `UserError` if nothing is known of it."""
        from imagemill.messages import BuildStatus

        def ask() -> BuildStatus:
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

        return self._patiently(ask)

    def builds(
        self,
        *,
        states: Collection[str] = (),
        destination: str = "",
        since: float = BUILD_KEEP_SECONDS,
        most: int | None = None,
    ) -> list[BuildSummary]:
        """Return the builds that workers have taken in the last `since` seconds, newest first, at
        most `most`.

        `states` are names of states as in `status`, in capitals; `destination` is part of the
        repository. Builds are known for a day.
        """

        def ask() -> list[BuildSummary]:
            found = self._newest(time.time() - since)
            wanted = (
                each
                for each in found
                if (not states or each.state in states)
                and destination in (each.image or each.destination or "")
            )
            return list(islice(wanted, most))

        return self._patiently(ask)

    def logs(self, build: str, *, follow: bool = False) -> Iterator[str]:
        """Yield the lines of the build's log so far; with `follow` also those to come, until the
        build ends.
        """
        for event in self.events(build, follow=follow):
            if event.line is not None:
                yield event.line

    def events(
        self,
        build: str,
        *,
        follow: bool = True,
        timeout: float | None = None,
        after: str = "0",
    ) -> Iterator[Event]:
        """States, log lines and, last, the report. Ends with the report, after `timeout` seconds,
        or, unless `follow`, with what there is now. `after` is the position of an event: those
        after it.
        """
        from imagemill.state.journal import Event

        end = time.monotonic() + timeout if timeout is not None else None
        position, asked = after, time.monotonic()
        if follow:
            # The build was asked for, so the service was there, if not for this client.
            self._reached = True
        self._patiently(lambda: self._known(build), end)
        while True:
            wait = self._wait(follow, end)
            events = self._patiently(partial(self._journal.events, build, position, wait), end)
            for event in events:
                yield event
                if event.report is not None:
                    return
                position = event.position
            if not events and (not follow or (end is not None and time.monotonic() >= end)):
                return
            if not events and time.monotonic() - asked > _BACKEND_CHECK_SECONDS:
                asked = time.monotonic()
                if (report := self._patiently(lambda: self._result(build), end)) is not None:
                    yield Event(position, time.time(), report=report)
                    return
                # A Redis that has lost its data knows of no build any more.
                self._patiently(lambda: self._known(build), end)

    def plan_upload(self, request: BuildRequest, timeout: float | None = None) -> UploadPlan:
        """Where a source is to go that the workers cannot read; see `imagemill.context.uploads`.

        Like a build, the question waits until a worker takes it; `ServiceUnreachable` if none has
        for `timeout` seconds. The error of a worker that cannot say it is raised here.
        """
        from celery.exceptions import TimeoutError as CeleryTimeout

        from imagemill.messages import UploadPlan

        with _reachable():
            self._journal.redis.ping()  # Celery tries for long, and then tells what it has tried
            question = uuid.uuid4().hex
            asked: AsyncResult[Any] = self.app.send_task(
                PLAN_UPLOAD,
                kwargs=self._signed(question, request),
                task_id=question,
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
        """Return the hash of what the build makes its image from, once it is known; `UserError` if
        the build has none.
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

    def inputs(self, source_hash: str) -> InputRecord:
        """Return the record of what the image with this source hash is made from; `UserError` if
        there is none (any more).
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

        def ask() -> None:
            if self._report(build) is None:
                self._known(build)
                self._journal.ask_to_cancel(build)

        self._patiently(ask)

    def workers(self) -> dict[str, list[str]]:
        """Return the workers that take tasks: name → queues. One that was killed is gone within
        seconds.
        """
        return self._patiently(
            lambda: {worker.name: list(worker.queues) for worker in self._presence.workers()}
        )

    def dead_letters(self) -> list[DeadLetter]:
        """Return the messages that workers have put aside, since nobody can work with them."""
        return self._patiently(self._dead.all)

    def dead_letter(self, letter: str) -> DeadLetter:
        """One of them; `UserError` if there is none with this id (any more)."""
        found = self._patiently(lambda: self._dead.find(letter))
        if found is None:
            raise UserError(f"There is no dead letter {letter}", "`imagemill dead list` lists them")
        return found

    def retry_dead_letter(self, letter: str) -> None:
        """Put a message back into its queue; `UserError` if it never was one."""
        found = self.dead_letter(letter)
        if not found.message.get("headers"):
            raise UserError(f"{letter} is no message: {found.reason}", "drop it")
        with _reachable(), self.app.producer_pool.acquire(block=True) as producer:
            producer.publish(
                found.message["body"],
                exchange="",
                routing_key=found.queue,
                headers=found.message["headers"],
                content_type=found.message["content_type"],
                content_encoding="utf-8",
            )
        self._dead.drop(letter)

    def drop_dead_letter(self, letter: str) -> None:
        """Forget a message."""
        self._patiently(lambda: self._dead.drop(self.dead_letter(letter).id))

    @cached_property
    def _presence(self) -> Presence:
        from imagemill.state.presence import Presence

        return Presence(self._journal.redis, self._key_prefix)

    @cached_property
    def _dead(self) -> DeadLetters:
        from imagemill.state.dead_letters import DeadLetters

        return DeadLetters(self._journal.redis, self._key_prefix)

    def _send(self, build: str, request: BuildRequest) -> None:
        from imagemill.messages import MOST_BYTES

        size = len(request.model_dump_json())
        if size > MOST_BYTES:
            raise UserError(
                f"The build request has {size:,} bytes as JSON, and workers refuse more than"
                f" {MOST_BYTES:,}",
                "put what is long into the source",
            )
        with _reachable(), tracing.submitting() as headers:
            self._journal.ask(build, time.time())
            self.app.send_task(
                BUILD_IMAGE,
                kwargs=self._signed(build, request),
                task_id=build,
                queue=LIGHT,
                headers=headers,
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

    def _signed(self, task: str, request: BuildRequest) -> dict[str, Any]:
        """Return the arguments of a task about a request, signed where there is a tenant."""
        if not self._tenant:
            return {"request": request.dump()}
        from imagemill.tenants import signed

        return signed(request.dump(), task, self._tenant, self._key)

    @cached_property
    def _inputs(self) -> InputRecords:
        from imagemill.state.input_records import (
            InputRecords,  # it brings all that reads sources, which few clients do
        )

        return InputRecords(self._journal.redis, self._key_prefix)

    def _newest(self, since: float) -> Iterable[BuildSummary]:
        return self._journal.newest(since)

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
        """Return what the result backend says of a build that has ended."""
        from imagemill.messages import BuildReport

        result: AsyncResult[Any] = self.app.AsyncResult(build)
        state, value = result.state, result.result
        if state == "SUCCESS" and isinstance(value, dict):
            return BuildReport.load(value)
        if state == "FAILURE":
            return BuildReport(id=build, status="failed", error=_failure(value))
        return None

    def _shown(self, build: str) -> dict[str, Any]:
        """Return what the result backend says of a build that runs (`Journal.enter`)."""
        shown = self.app.AsyncResult(build).info
        return shown if isinstance(shown, dict) else {}

    def _patiently(self, ask: Callable[[], Answer], end: float | None = None) -> Answer:
        """Return what the service answers. An outage is waited for `patience` seconds, and by a
        client that has not reached the service before, for a moment.
        """
        seconds = self._patience if self._reached else min(self._patience, _FIRST_SECONDS)
        given_up = min(time.monotonic() + seconds, end if end is not None else math.inf)
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            try:
                with _reachable():
                    answer = ask()
            except ServiceUnreachable as error:
                if time.monotonic() + pause > given_up:
                    raise
                if pause == _PAUSES[0]:
                    self.on_outage(f"{error.message}; waiting for it, for up to {seconds:.0f} s")
                time.sleep(pause)
            else:
                self._reached = True
                return answer
        raise AssertionError  # the pauses have no end

    @staticmethod
    def _wait(follow: bool, end: float | None) -> float:
        if not follow:
            return 0
        return (
            _READ_SECONDS if end is None else max(0.001, min(_READ_SECONDS, end - time.monotonic()))
        )


def _request(source: str | os.PathLike[str] | BuildRequest, **fields: Any) -> BuildRequest:
    """Return the request of these fields, without those that say nothing."""
    from imagemill.messages import BuildRequest

    defaults = BuildRequest.model_fields
    given = {
        name: value
        for name, value in fields.items()
        if value is not None and value != defaults[name].default
    }
    if not isinstance(source, BuildRequest):
        return BuildRequest.parse({"source": source, **given})
    if given:
        raise UserError(
            f"A BuildRequest was given, and beside it {', '.join(given)}",
            "give one or the other: request.model_copy(update={…}) is a request with other values",
        )
    return source


def reach_broker(client: Client) -> None:
    """Raise `ServiceUnreachable` if the broker of a client does not answer."""
    with _reachable(), client.app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1)


def open_journal(app: celery.Celery, backend: str, key_prefix: str, patience: int = 6) -> Journal:
    """Return the journals that lie beside the results of the application."""
    from imagemill.state.journal import Journal, connect

    results: Any = app.backend
    return Journal(connect(backend, patience=patience), key_prefix, results.get_key_for_task)


def _failure(error: object) -> Failure:
    from imagemill.messages import Failure

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
        **connections.tls_options(broker),
    }
    if not broker.startswith("amqp"):
        configuration["broker_transport_options"] = {
            "global_keyprefix": key_prefix,
            "socket_connect_timeout": 5,
        }
    return configuration


@contextmanager
def _reachable() -> Iterator[None]:
    """Say in our words that broker or result backend is away, or lets this user do too little."""
    try:
        yield
    except _away() as error:
        if isinstance(error, NoPermissionError) or isinstance(error.__cause__, NoPermissionError):
            raise PermissionDenied(
                "The Redis user of this client may not do that",
                "docs/security.md says what a client's user may; operators have the workers'",
            ) from None
        raise ServiceUnreachable(
            f"The broker or the result backend does not answer: {_without_password(error)}",
            "see that IMAGEMILL_BROKER and IMAGEMILL_BACKEND are right and that their servers are up",
        ) from None


def _away() -> tuple[type[Exception], ...]:
    """Return what Celery, kombu and redis-py raise where a server is away."""
    from celery.exceptions import CeleryError
    from kombu.exceptions import OperationalError

    return (OperationalError, RedisError, CeleryError, ConnectionError)


def _without_password(error: Exception) -> str:
    """Return the error's text up to a URL, which may hold a password."""
    return str(error).split("://")[0]
