"""Doubles for the tests of programs that use Imagemill: nothing is asked, and no time passes.

    client = StubClient()
    build = client.submit("/src/project", "registry.example.com/team/model")
    assert client.requests[build].destination == "registry.example.com/team/model"
    assert client.wait(build).status == "succeeded"

They are held by the same tests as what they stand for.
"""

import hashlib
import io
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from imagemill.client import Client
from imagemill.errors import TransientError, UserError
from imagemill.messages import (
    BuildReport,
    BuildRequest,
    BuildStatus,
    BuildSummary,
    Failure,
    State,
    StepTime,
)
from imagemill.objects.names import checked
from imagemill.ports import Credentials
from imagemill.reference import ImageReference
from imagemill.state.journal import Event


def succeeded(build: str, request: BuildRequest) -> BuildReport:
    """Return the report of a build that has made an image of its request."""
    text = json.dumps(request.dump(), sort_keys=True)
    source_hash = hashlib.sha256(text.encode()).hexdigest()
    repository = request.destination or "registry.example.com/stub"
    return BuildReport(
        id=build,
        status="succeeded",
        image=f"{repository}@sha256:{source_hash}",
        digest=f"sha256:{source_hash}",
        tags=tuple(f"{repository}:{tag}" for tag in (source_hash, *request.tags)),
        source_hash=source_hash,
        built=True,
        builder="docker",
    )


def failed(build: str, message: str, hint: str = "", *, kind: str = "UserError") -> BuildReport:
    """Return the report of a build that has failed for this reason."""
    failure = Failure(kind=kind, message=message, hint=hint, state=State.BUILDING)
    return BuildReport(id=build, status="failed", error=failure)


class StubClient(Client):
    """A `Client` of no service. It refuses what the real one refuses.

    `answer` gives the report of a build, or None for one that goes on until `finish` is called;
    by default each succeeds. `requests` has what was asked for, by the build's id.
    """

    def __init__(
        self, answer: Callable[[str, BuildRequest], BuildReport | None] = succeeded
    ) -> None:
        super().__init__("redis://stub.invalid:6379/0")
        self.requests: dict[str, BuildRequest] = {}
        self.reports: dict[str, BuildReport] = {}
        self._answer = answer
        self._events: dict[str, list[Event]] = {}

    def close(self) -> None:
        """Do nothing: there are no connections."""

    def log(self, build: str, *lines: str) -> None:
        """Add lines to the log of a build."""
        for line in lines:
            self._note(build, line=line)

    def finish(self, build: str, report: BuildReport) -> None:
        """End a build with this report; one that has ended stays as it is."""
        if build not in self.reports:
            self.reports[build] = report
            self._note(build, report=report)

    def status(self, build: str) -> BuildStatus:
        """See `Client.status`."""
        events = self._known_events(build)
        if build in self.reports:
            return BuildStatus.ended(self.reports[build])
        steps = tuple(StepTime(state=each.state, started=each.at) for each in events if each.state)
        return BuildStatus(id=build, state=steps[-1].state, steps=steps)

    def events(
        self,
        build: str,
        *,
        follow: bool = True,
        timeout: float | None = None,
        after: str = "0",
    ) -> Iterator[Event]:
        """See `Client.events`; ends with what there is, since nothing more comes by itself."""
        yield from self._known_events(build)[int(after) :]

    def cancel(self, build: str) -> None:
        """See `Client.cancel`."""
        self._known_events(build)
        failure = Failure(kind="BuildCancelled", message="The build was cancelled")
        self.finish(build, BuildReport(id=build, status="cancelled", error=failure))

    def workers(self) -> dict[str, list[str]]:
        """Return no workers: there are none."""
        return {}

    def _send(self, build: str, request: BuildRequest) -> None:
        self.requests[build] = request
        self._note(build, state=State.QUEUED)
        report = self._answer(build, request)
        if report is not None:
            self.finish(build, report)

    def _known(self, build: str) -> tuple[StepTime, ...]:
        return self.status(build).steps

    def _newest(self, since: float) -> list[BuildSummary]:
        return [self._summary(build) for build in reversed(self.requests)]

    def _summary(self, build: str) -> BuildSummary:
        request, status = self.requests[build], self.status(build)
        report = status.report or BuildReport(id=build, status="succeeded")
        return BuildSummary(
            id=build,
            begun=self._events[build][0].at,
            state=status.state,
            source=request.source,
            destination=request.destination,
            image=report.image,
            error=report.error.message if report.error else None,
        )

    def _shown(self, build: str) -> dict[str, Any]:
        return {}

    def _report(self, build: str) -> BuildReport | None:
        return self.reports.get(build)

    def _note(self, build: str, **what: object) -> None:
        events = self._events.setdefault(build, [])
        events.append(Event(str(len(events) + 1), time.time(), **what))  # type: ignore[arg-type]

    def _known_events(self, build: str) -> list[Event]:
        if build not in self._events:
            raise UserError(f"Nothing is known of a build {build}", "it was not submitted here")
        return self._events[build]


class MemoryRegistry:
    """A registry (`imagemill.ports.Registry`) that keeps digests by their tags."""

    def __init__(self) -> None:
        self.tags: dict[str, dict[str, str]] = {}
        """Repository → tag → digest."""

    def push(self, reference: ImageReference, content: bytes = b"") -> str:
        """Keep an image of this content under the tag, as a builder does; returns its digest."""
        digest = f"sha256:{hashlib.sha256(content or uuid.uuid4().bytes).hexdigest()}"
        self.tags.setdefault(reference.repository, {})[reference.tag or "latest"] = digest
        return digest

    def digest(self, reference: ImageReference) -> str | None:
        """See `Registry.digest`."""
        known = self.tags.get(reference.repository, {})
        if reference.digest:
            return reference.digest if reference.digest in known.values() else None
        return known.get(reference.tag or "latest")

    def tag(self, reference: ImageReference, tags: Sequence[str]) -> None:
        """See `Registry.tag`."""
        digest = self.digest(reference)
        if digest is None:
            raise TransientError(
                f"{reference} is not in the registry any more", "build it again", exhausted=True
            )
        self.tags[reference.repository] |= dict.fromkeys(tags, digest)

    def credentials(self, repository: ImageReference) -> Credentials | None:
        """Return None: everybody may push."""
        return None

    def prepare(self, repository: ImageReference) -> None:
        """See `Registry.prepare`."""
        self.tags.setdefault(repository.repository, {})

    def delete(self, reference: ImageReference) -> None:
        """See `Registry.delete`."""
        self.tags.get(reference.repository, {}).pop(reference.tag or "latest", None)


class MemoryStore:
    """A context store (`imagemill.ports.ContextStore`) that keeps objects by their names."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def uri(self, name: str) -> str:
        """See `ContextStore.uri`."""
        return f"memory://store/{checked(name)}"

    def exists(self, name: str) -> bool:
        """See `ContextStore.exists`."""
        return checked(name) in self.objects

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """See `ContextStore.create`."""
        checked(name)
        stream = io.BytesIO()
        yield stream
        self.objects[name] = stream.getvalue()

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """See `ContextStore.open`."""
        if not self.exists(name):
            raise FileNotFoundError(self.uri(name))
        yield io.BytesIO(self.objects[name])

    def delete(self, name: str) -> None:
        """See `ContextStore.delete`."""
        self.objects.pop(checked(name), None)

    def signed(self, name: str, seconds: float) -> None:
        """See `ContextStore.signed`: it has no URLs."""
