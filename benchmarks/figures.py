"""What all benchmarks share: turns of two sides, their wall time and CPU time, medians and spreads,
and the small sizes of a smoke run.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import psutil

ROUNDS = 5
SMOKE = "IMAGEMILL_BENCH_SMOKE"
"""Variable of a run that shows only whether the benchmarks run."""


class Figure(NamedTuple):
    """A figure, and how far apart its rounds were."""

    value: float
    """Of the median round."""
    low: float
    high: float
    cpu: float | None = None
    """The same figure in CPU seconds (user and system, of all processes) in place of wall time."""


class Turn(NamedTuple):
    """What one side took: wall time and CPU time, in seconds."""

    seconds: float
    cpu: float


def sized(full: int, small: int) -> int:
    """`full`, or in a smoke run `small`."""
    return small if os.environ.get(SMOKE) else full


def rounds(full: int = ROUNDS) -> int:
    """How many rounds are measured."""
    return sized(full, 1)


def turn(action: Callable[[], object]) -> Turn:
    """Take the time of an action, and the CPU time of all that descends from this process."""
    cpu, begun = _cpu(), time.perf_counter()
    action()
    return Turn(time.perf_counter() - begun, max(_cpu() - cpu, 1e-3))


def ratio(pairs: Sequence[tuple[Turn, Turn]]) -> Figure:
    """The one side's time ÷ the other's: of the medians, with the spread of the rounds."""
    one, other = zip(*pairs, strict=True)
    single = sorted(a.seconds / b.seconds for a, b in pairs)
    return Figure(
        statistics.median(each.seconds for each in one)
        / statistics.median(each.seconds for each in other),
        single[0],
        single[-1],
        statistics.median(each.cpu for each in one) / statistics.median(each.cpu for each in other),
    )


def _cpu() -> float:
    """CPU time of this process and its descendants, those included that were waited for."""
    total = 0.0
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total
