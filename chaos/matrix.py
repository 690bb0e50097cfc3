"""Each fault at each point of each step: a build a cell, judged by itself.

Cells of the same fault are tried together: their builds stand still, each at its own point, when it
comes.
"""

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from chaos.builders import BUILDERS
from chaos.faults import FAULTS, Spot, faults
from chaos.history import Event, of_build, violations
from chaos.site import Site

POINTS = ("before", "mid", "after", "published")
"""Where in a step it may stand still; `chaos.points` says what they are."""

TOGETHER = 6
"""How many builds stand still at once, at the most: workers have more processes than that."""

_REACHED_SECONDS = 90.0
_SETTLED_SECONDS = 150.0


@dataclass(frozen=True)
class Cell:
    """One place of the matrix."""

    step: str
    point: str
    fault: str

    def __str__(self) -> str:
        return f"{self.step}/{self.point} {self.fault}"

    @property
    def spot(self) -> str:
        """Its name in the folder of points."""
        return f"{self.step}.{self.point}"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell; nothing is wrong if `wrong` is empty."""

    cell: Cell
    seconds: float
    wrong: tuple[str, ...]


def batches(
    builder: str = "docker", broker: str = "redis", *, share: float = 1.0, seed: int = 0
) -> list[list[Cell]]:
    """Return the whole matrix, as cells that are tried together, or a share of it at random: the
    same for the same seed.
    """
    chance, found = random.Random(seed), []
    spots = [
        (step, point)
        for step in BUILDERS[builder].steps
        for point in POINTS
        # The entry claims nothing, and the last step sends nothing.
        if (step, point) not in {("build_image", "mid"), ("report", "after")}
    ]
    for fault in faults(builder, broker):
        chance.shuffle(spots)
        every = [Cell(step, point, fault) for step, point in spots]
        found += [every[begin : begin + TOGETHER] for begin in range(0, len(every), TOGETHER)]
    return found if share >= 1 else chance.sample(found, max(1, round(share * len(found))))


def run(site: Site, chosen: Sequence[Sequence[Cell]]) -> Iterator[Outcome]:
    """Run the cells on a service whose workers have been started, and that is finished later."""
    for batch in chosen:
        begun, seen = time.monotonic(), len(site.history)
        builds = _break(site, batch)
        seconds = time.monotonic() - begun
        for cell in batch:
            yield Outcome(cell, seconds, _judge(cell, builds.get(cell), site.history[seen:]))


def _judge(cell: Cell, build: str | None, recent: Sequence[Event]) -> tuple[str, ...]:
    if build is None:
        return (f"no build came to {cell.step}/{cell.point}",)
    return tuple(map(str, violations(of_build(recent, build))))


def _break(site: Site, batch: Sequence[Cell]) -> Mapping[Cell, str]:
    """Break the service when new builds have come to the cells' points; returns whose build stood
    where, once all have settled.
    """
    for left in site.points.iterdir():
        left.unlink()
    for cell in batch:
        (site.points / f"{cell.spot}.armed").touch()
    for _ in batch:
        site.submit(site.source())
    reached = {cell: site.points / f"{cell.spot}.reached" for cell in batch}
    site.until(lambda: all(path.exists() for path in reached.values()), _REACHED_SECONDS)
    stand = {cell: json.loads(path.read_text()) for cell, path in reached.items() if path.exists()}
    spots = [Spot(each["child"], site.owner(each["child"])) for each in stand.values()]
    fault = batch[0].fault
    site.broke(fault)
    FAULTS[fault](site, spots)
    (site.points / "go").touch()
    site.mended()
    site.broke(fault, mended=True)
    site.settle(_SETTLED_SECONDS)
    return {cell: each["build"] for cell, each in stand.items()}
