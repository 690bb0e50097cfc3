"""What was built last of each source, for `imagemill plan` where no service knows it: kept by the
command line's own service, which ends with the build.
"""

import json
from contextlib import suppress
from dataclasses import astuple, dataclass
from typing import Literal, NamedTuple

from imagemill.messages import BuildReport
from imagemill.state.grafts import Shelf
from imagemill.why.record import InputRecord

MOST_TIMES = 5
"""Builds of a source whose times are kept."""


@dataclass(frozen=True)
class EarlierTime:
    """How long a build of the source took."""

    way: Literal["code", "builder"]
    seconds: float

    @classmethod
    def of(cls, report: BuildReport) -> "EarlierTime":
        """Return the time of a build that has made an image."""
        return cls("code" if report.grafted else "builder", round(report.seconds, 3))


class LastBuild(NamedTuple):
    """The last build of a source that has succeeded."""

    repository: str
    """Where its image is."""
    times: tuple[EarlierTime, ...]
    """Of builds that have made an image, newest first."""
    record: InputRecord | None
    """What it was made from; None if that is not known any more."""


class LastBuilds:
    """Source → the last build of it."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def note(self, source: str, repository: str, report: BuildReport, record: bytes) -> None:
        """Keep a build that has succeeded, with its record as `dump` gives it; one that cannot be
        written down is not kept.
        """
        times = [EarlierTime.of(report)] if report.built else []
        with suppress(OSError):
            found = self._found(source)
            kept = [astuple(each) for each in (*times, *(found[1] if found else ()))]
            head = json.dumps([repository, kept[:MOST_TIMES]]).encode()
            self._shelf.put(source, head + b"\n" + record)

    def find(self, source: str) -> LastBuild | None:
        """Return the last build of a source; None if there was none, it is too long ago, or what is
        kept has lost its beginning. Errors are those of `InputRecord.load`.
        """
        found = self._found(source)
        if found is None:
            return None
        repository, times, record = found
        return LastBuild(repository, times, InputRecord.load(record))

    def _found(self, source: str) -> tuple[str, tuple[EarlierTime, ...], bytes] | None:
        (found,) = self._shelf.find([source])
        if found is None:
            return None
        head, _, record = found.partition(b"\n")
        try:
            repository, times = json.loads(head)
            return repository, tuple(EarlierTime(*each) for each in times), record
        except (ValueError, TypeError):  # the machine has stopped before it was on the disk
            return None
