"""docs/chaos.md: what came of the last run of each kind. A run writes its own part, and leaves the
others as they are.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chaos.builders import BUILDERS
from chaos.faults import faults
from chaos.history import Event, Kind, Submitted, lateness, violations
from chaos.matrix import POINTS, Outcome, batches

HEAD = """\
# What was broken, and what became of it

A whole service of real servers is broken on purpose, and what was seen of it is judged afterwards,
by a checker that knows nothing of how it works: `make chaos`, or `python -m chaos --help` for a
part. Kaniko's cluster is the API server of the tests, whose pods push real images. *graft* makes
images of earlier ones without a builder; *noop* refuses each build, which is to be reported once as
well.

In the matrix builds stand still at a point of a step (before it, in it, after it, and when the next
message has been sent) while something is done to the service. In a storm builds are asked for again
and again while a worker is killed with all its processes every 3 s; servers are killed where it
says so. Redis writes each change to its disk (`appendfsync always`), and messages of dead workers
are delivered again after 6 s. In a roll workers are told to end, one after the other, as an
upgrade does.

`make test` runs a part that is chosen by seed (`tests/integration/test_chaos.py`): six
cells and a storm of 8 s, of docker on Redis and of Kaniko on RabbitMQ.
"""

RUNS = """\
## Runs

How often something was wrong. *Left over*, within a minute of the last report, may be folders,
contexts, locks, keys without an end, messages, tags in the engine, Jobs, Secrets and processes.
*Last report* is seconds after the last fault: at most 15 after a storm, on a machine that has the
time. *Load* is how many processes wanted each of its processors meanwhile: where that is far above
1, workers take as long to start as others do for a build.
"""

_COUNTED = [kind for kind in Kind if kind is not Kind.LATE]
_COLUMNS = ["run", "builder", "broker", "date", "builds", *_COUNTED, "last report", "load"]
_NAMED = 3
"""The first columns, by which a run is known."""


@dataclass(frozen=True)
class Run:
    """What was run, and all that was seen of it; `outcomes` of a matrix alone."""

    what: str
    builder: str
    broker: str
    history: Sequence[Event]
    outcomes: Sequence[Outcome] = ()
    seed: int = 0


def written(page: str, run: Run) -> str:
    """Return the page with what came of the run in place of what it says of the last such run."""
    _, *sections = page.split("\n## ")
    lines = sections[0].splitlines() if sections else []
    rows = {
        _name(line): line for line in lines if line.startswith(("| matrix", "| storm", "| roll"))
    }
    row = _row(run)
    rows[_name(row)] = row
    matrices = dict(section.rstrip("\n").split("\n", 1) for section in sections[1:])
    if run.outcomes:
        matrices[f"Matrix: {run.builder} on {run.broker}"] = "\n" + "\n".join(_matrix(run))
    table = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS)), *sorted(rows.values())]
    parts = [f"## {title}\n{text}\n" for title, text in sorted(matrices.items())]
    return "\n".join([HEAD, RUNS, *table, "", *parts]).rstrip("\n") + "\n"


def _name(row: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in row.split("|")[1 : _NAMED + 1])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(run: Run) -> str:
    found: Counter[Kind] = Counter(each.kind for each in violations(run.history))
    builds = sum(isinstance(event, Submitted) for event in run.history)
    last = f"{max(0.0, lateness(run.history)):.1f} s" if not run.outcomes else ""
    counts = [str(found[kind]) for kind in _COUNTED]
    named = [run.what, run.builder, run.broker, time.strftime("%Y-%m-%d")]
    load = os.getloadavg()[2] / (os.cpu_count() or 1)
    return _line([*named, str(builds), *counts, last, f"{load:.1f}"])


def _matrix(run: Run) -> Iterator[str]:
    """A row a point, a column a fault."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for outcome in run.outcomes:
        cell = outcome.cell
        found.setdefault((cell.step, cell.point, cell.fault), []).extend(outcome.wrong)
    columns = faults(run.builder, run.broker)
    whole = sum(map(len, batches(run.builder, run.broker)))
    yield f"{len(found)} of {whole} cells, chosen by seed {run.seed}. *ok* is one right report, the"
    yield "image in the registry, no two builders at once, and a plain Celery caller that is told"
    yield "the same."
    yield ""
    yield _line(["step/point", *columns])
    yield _line(["---"] * (len(columns) + 1))
    for step in BUILDERS[run.builder].steps:
        for point in POINTS:
            row = [found.get((step, point, fault)) for fault in columns]
            if any(each is not None for each in row):
                said = ["" if each is None else "; ".join(each) or "ok" for each in row]
                yield _line([f"{step}/{point}", *said])
