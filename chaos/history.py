"""What was seen of a run, and what must hold of it, whatever was done to the service meanwhile.

In the manner of Jepsen: the run is recorded first and judged afterwards, by a checker that knows
nothing of how the service works. A history is a list of events that can be kept as lines of JSON.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Submitted:
    """A build was asked for.

    `image` is what one build at a time may make: its reference, or its source; `expected` is the
    status that its report is to have.
    """

    at: float
    build: str
    image: str
    expected: str = "succeeded"


@dataclass(frozen=True)
class Reported:
    """A report stands in the build's journal; a build with two reports has two of these."""

    at: float
    build: str
    status: str
    digest: str | None = None
    error: str = ""


@dataclass(frozen=True)
class Answered:
    """What a plain Celery caller of the build is told at the end: a final state, or another one if
    it hangs.
    """

    at: float
    build: str
    state: str


@dataclass(frozen=True)
class Building:
    """At this moment, these builders were at work: pairs of the image and of the builder's own
    name (the process of a docker command, a Job).
    """

    at: float
    builders: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Broken:
    """Something was done to the service: `fault` to `target`; `mended` says that it is over."""

    at: float
    fault: str
    target: str = ""
    mended: bool = False


@dataclass(frozen=True)
class Stored:
    """The registry holds a manifest with this digest at the end."""

    at: float
    digest: str


@dataclass(frozen=True)
class Left:
    """Something of the service's was still there when all builds had ended and their time to be
    cleaned up was over.
    """

    at: float
    kind: str
    name: str


@dataclass(frozen=True)
class Died:
    """A worker ended that nobody had touched."""

    at: float
    worker: str
    status: int


Event = Submitted | Reported | Answered | Building | Broken | Stored | Left | Died

_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (Submitted, Reported, Answered, Building, Broken, Stored, Left, Died)
}
_FINAL = {"SUCCESS", "FAILURE", "REVOKED"}


def save(history: Iterable[Event], path: Path) -> None:
    """Write the history as one JSON object a line."""
    lines = (json.dumps({"event": type(event).__name__, **asdict(event)}) for event in history)
    path.write_text("".join(f"{line}\n" for line in lines))


def load(path: Path) -> list[Event]:
    """Read a history that `save` wrote."""
    return [_event(json.loads(line)) for line in path.read_text().splitlines()]


def _event(fields: dict[str, Any]) -> Event:
    kind = _KINDS[fields.pop("event")]
    if kind is Building:
        fields["builders"] = tuple(tuple(pair) for pair in fields["builders"])
    return kind(**fields)


class Kind(StrEnum):
    """What can be wrong, in the words of docs/chaos.md."""

    LOST = "without a report"
    TWICE = "two reports"
    OTHER = "another end"
    HANGS = "callers that hang"
    ABSENT = "digests that are not there"
    DOUBLED = "built twice at once"
    DIED = "workers that died"
    LEFT = "left over"
    LATE = "late"


@dataclass(frozen=True)
class Violation:
    """A promise that was not kept."""

    kind: Kind
    said: str

    def __str__(self) -> str:
        return self.said


def violations(history: Sequence[Event], *, late: float | None = None) -> list[Violation]:
    """Return what is wrong with the history; nothing if all promises were kept.

    `late` is how many seconds after the last fault was over the last report may come at the most;
    None: this is not looked at.
    """
    return [
        *_reports(history),
        *_callers(history),
        *_digests(history),
        *_doubles(history),
        *(
            Violation(Kind.LEFT, f"left over: {event.kind} {event.name}")
            for event in history
            if isinstance(event, Left)
        ),
        *(
            Violation(
                Kind.DIED,
                f"the worker {event.worker}, which nobody had touched, ended with {event.status}",
            )
            for event in history
            if isinstance(event, Died)
        ),
        *(_late(history, late) if late is not None else ()),
    ]


def of_build(history: Iterable[Event], build: str) -> list[Event]:
    """Return what concerns one build, and what concerns all of them."""
    events = list(history)
    images = {each.image for each in events if isinstance(each, Submitted) and each.build == build}
    return [
        replace(event, builders=tuple(pair for pair in event.builders if pair[0] in images))
        if isinstance(event, Building)
        else event
        for event in events
        if getattr(event, "build", build) == build
    ]


def _reports(history: Sequence[Event]) -> Iterator[Violation]:
    """Every build that was submitted has exactly one report, of the status that was expected."""
    reports: dict[str, list[Reported]] = defaultdict(list)
    submitted = {event.build: event for event in history if isinstance(event, Submitted)}
    for event in history:
        if isinstance(event, Reported):
            reports[event.build].append(event)
    for build, asked in submitted.items():
        found = reports.pop(build, [])
        if not found:
            yield Violation(Kind.LOST, f"lost: {build} has no report")
        elif len(found) > 1:
            statuses = ", ".join(each.status for each in found)
            yield Violation(Kind.TWICE, f"{build} has {len(found)} reports: {statuses}")
        elif found[0].status != asked.expected:
            told = f"{build} {found[0].status} in place of {asked.expected}: {found[0].error}"
            yield Violation(Kind.OTHER, told)
    for build in reports:
        yield Violation(Kind.OTHER, f"{build} was reported, and nobody had asked for it")


def _callers(history: Sequence[Event]) -> Iterator[Violation]:
    """A plain Celery caller of a build that has been reported is answered, and the same."""
    statuses = {event.build: event.status for event in history if isinstance(event, Reported)}
    for event in history:
        if not isinstance(event, Answered) or event.build not in statuses:
            continue
        if event.state not in _FINAL:
            told = f"the Celery result of {event.build} stays {event.state}: its caller hangs"
            yield Violation(Kind.HANGS, told)
        elif (event.state == "SUCCESS") != (statuses[event.build] == "succeeded"):
            told = f"{event.build} {statuses[event.build]}, and its Celery result is {event.state}"
            yield Violation(Kind.OTHER, told)


def _digests(history: Sequence[Event]) -> Iterator[Violation]:
    """What a report says was pushed is in the registry."""
    stored = {event.digest for event in history if isinstance(event, Stored)}
    reports = [event for event in history if isinstance(event, Reported)]
    for event in reports:
        if event.status == "succeeded" and event.digest not in stored:
            told = f"{event.build} reports {event.digest}, which the registry does not have"
            yield Violation(Kind.ABSENT, told)


def _doubles(history: Sequence[Event]) -> Iterator[Violation]:
    """One image is made by one builder at a time."""
    seen: set[tuple[str, ...]] = set()
    for event in history:
        if not isinstance(event, Building):
            continue
        at_work: dict[str, set[str]] = defaultdict(set)
        for image, builder in event.builders:
            at_work[image].add(builder)
        for image, builders in at_work.items():
            if len(builders) > 1 and (image, *sorted(builders)) not in seen:
                seen.add((image, *sorted(builders)))
                told = f"{image} was built by {' and '.join(sorted(builders))} at the same time"
                yield Violation(Kind.DOUBLED, told)


def lateness(history: Sequence[Event]) -> float:
    """Return how many seconds after the last fault, or after the last request if that is later, the
    last report came.
    """
    begun = [event.at for event in history if isinstance(event, Broken | Submitted)]
    reported = [event.at for event in history if isinstance(event, Reported)]
    return max(reported) - max(begun) if begun and reported else 0.0


def _late(history: Sequence[Event], late: float) -> Iterator[Violation]:
    if (waited := lateness(history)) > late:
        told = (
            f"the last report came {waited:.1f} s after the last fault: {late:.0f} s are promised"
        )
        yield Violation(Kind.LATE, told)
