"""Each fault at each point of each step: one build a cell, judged by itself."""

import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chaos.faults import FAULTS, Spot
from chaos.history import Event, Submitted, violations
from chaos.site import REDELIVERY, Site

STEPS = (
    "build_image",
    "load_config",
    "hash_source",
    "check_registry",
    "graft",
    "upload_context",
    "build",
    "verify",
    "report",
)
"""The steps of a build that is made, in their order."""

POINTS = ("before", "mid", "after", "published")
"""Where in a step it may stand still; `chaos.points` says what they are."""

_REACHED_SECONDS = 60.0
_SETTLED_SECONDS = 120.0


@dataclass(frozen=True)
class Cell:
    """One place of the matrix."""

    step: str
    point: str
    fault: str

    def __str__(self) -> str:
        return f"{self.step}/{self.point} {self.fault}"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell; nothing is wrong if `wrong` is empty."""

    cell: Cell
    seconds: float
    wrong: tuple[str, ...]


def cells(share: float = 1.0, seed: int = 0) -> list[Cell]:
    """Return the whole matrix, or a share of it at random: the same for the same seed."""
    every = [
        Cell(step, point, fault)
        for step in STEPS
        for point in POINTS
        for fault in FAULTS
        # The entry claims nothing, and the last step sends nothing.
        if (step, point) not in {("build_image", "mid"), ("report", "after")}
    ]
    if share >= 1:
        return every
    return random.Random(seed).sample(every, max(1, round(share * len(every))))


def run(site: Site, chosen: Sequence[Cell]) -> Iterator[Outcome]:
    """Run the cells one after the other on a service whose workers have been started.

    A second report may come late: those that do are looked for when all cells are done, and told as
    another outcome of their cell.
    """
    cell_of: dict[str, Cell] = {}
    for number, cell in enumerate(chosen):
        begun, seen = time.monotonic(), len(site.history)
        wrong = _cell(site, cell, f"cell{number}")
        recent = _of_last_build(site.history, seen)
        cell_of |= {event.build: cell for event in recent if isinstance(event, Submitted)}
        yield Outcome(cell, time.monotonic() - begun, tuple(wrong or violations(recent)))
    for build in site.reported_again(2 * REDELIVERY):
        yield Outcome(cell_of[build], 0, (f"{build} was reported again",))


def _cell(site: Site, cell: Cell, name: str) -> list[str] | None:
    """Break the service when a new build comes to the cell's point; None once the build has
    settled.
    """
    for left in ("armed", "taken", "reached", "go"):
        (site.points / left).unlink(missing_ok=True)
    (site.points / "armed").write_text(f"{cell.step}/{cell.point}")
    site.submit(site.source(name))
    reached = site.points / "reached"
    if not site.until(reached.exists, _REACHED_SECONDS):
        (site.points / "go").touch()
        site.settle(_SETTLED_SECONDS)
        return [f"the build never came to {cell.step}/{cell.point}"]
    child = json.loads(reached.read_text())["child"]
    site.broke(cell.fault, cell.step)
    FAULTS[cell.fault](site, Spot(child, site.owner(child)))
    (site.points / "go").touch()
    site.mended()
    site.broke(cell.fault, cell.step, mended=True)
    site.settle(_SETTLED_SECONDS)
    return None


def _of_last_build(history: Sequence[Event], seen: int) -> list[Event]:
    """What was seen since a cell began, of its own build."""
    recent = list(history[seen:])
    own = {event.build for event in recent if isinstance(event, Submitted)}
    return [event for event in recent if getattr(event, "build", None) in {None, *own}]
