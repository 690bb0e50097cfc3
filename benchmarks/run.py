"""What `make bench` runs: every `measure()` in this folder, a table against the targets, and
results.json.

A figure is a ratio of two things measured in the same run wherever that can be: absolute times are
noise on shared machines. Modules are measured one after another, each in a process of its own, so
that none inherits another's memory, connections or warm caches.

    python -m benchmarks.run            all
    python -m benchmarks.run context    benchmarks/context.py alone; the other figures are kept as they are
    python -m benchmarks.run --smoke    small sizes, no bounds, nothing written: whether they run at all

A figure is written as soon as it is measured, and a module that fails does not take the others with
it. A bound that is met within the spread of the rounds is met.
"""

import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.table import Table

from benchmarks.figures import SMOKE, Figure

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
MODULES = sorted(path.stem for path in HERE.glob("*.py") if "\ndef measure(" in path.read_text())
"""The modules that take part: others hold what several of them share."""

_MARK = "figure: "
"""Before a line that is for `measured`."""


@dataclass(frozen=True)
class Target:
    """What a figure means, and the bound it has to keep."""

    meaning: str
    at_most: float | None = None
    at_least: float | None = None

    def met(self, figure: Figure) -> bool:
        """Whether the bound is kept, by the median or within the spread."""
        return (self.at_most is None or min(figure.value, figure.low) <= self.at_most) and (
            self.at_least is None or max(figure.value, figure.high) >= self.at_least
        )

    def verdict(self, figure: Figure) -> str:
        """Whether the bound is kept, in a word; none where there is no bound."""
        if self.at_most is None and self.at_least is None:
            return ""
        return "met" if self.met(figure) else "[red]missed"

    def __str__(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else "-"


TARGETS: Mapping[str, Target] = {
    "hash_vs_sha256": Target("hashing a tree ÷ sha256 of the same bytes in memory", at_most=2.0),
    "pack_vs_tar_pigz": Target("packing a tree ÷ tar | pigz -1", at_most=0.6),
    "pack_rss_mb": Target("peak memory of packing and storing 2 GB, in MB", at_most=150),
    "fair_wait_vs_alone": Target(
        "median wait of a tenant's 100 builds beside 1,000 of another's ÷ alone", at_most=2
    ),
    "chain_vs_bare": Target(
        "builds/s of existing images ÷ chains/s of as many empty tasks", at_least=0.8
    ),
    "client_import_vs_celery": Target(
        "importing the client ÷ importing celery and redis", at_most=1.3
    ),
    "cached_ms": Target("median ms from submit to report where the image exists"),
    "upload_vs_sdk": Target(
        "storing a 2 GB context ÷ the SDK's own upload of the file", at_most=1.1
    ),
    "upload_rss_mb": Target("peak memory of storing a 2 GB context, in MB", at_most=160),
    "kaniko_end_to_report_ms": Target(
        "median ms from a Job's end to its build's report, through the chain", at_most=500
    ),
    "kaniko_pool_200_rss_mb": Target("peak memory of the worker for Kaniko with 200 builds, in MB"),
    "kaniko_pool_200_connections": Target("its connections to the API server, at most"),
    "kaniko_pool_200_redis_connections": Target("its connections to Redis, at most"),
    "kaniko_pool_200_seconds": Target(
        "seconds from the first request to the last report, cluster and Kaniko played"
    ),
    "kaniko_pool_200_ends_seconds": Target("seconds from the first Job's end to the last report"),
    "edit_vs_cli": Target(
        "one line changed beside 1 GB of weights, with a service ÷ docker build and push",
        at_most=2.5,
    ),
    "edit_many_vs_cli": Target(
        "one file changed after a layer of 37,000 files, likewise", at_most=1.0
    ),
    "edit_within_vs_cli": Target("one of 37,000 files in one COPY changed, likewise", at_most=0.5),
    "edit_embedded_vs_cli": Target("the first without a service", at_most=8.0),
    "same_embedded_vs_cli": Target(
        "nothing changed in 37,000 files, without a service ÷ docker build and push", at_most=1.2
    ),
    "hash_unchanged_vs_git": Target(
        "hashing 37,000 files that have not changed ÷ git status", at_most=1.5
    ),
    "graft_vs_cli": Target(
        "a change of code, 2,000 files of 24 MB, ÷ docker build and docker push, warm",
        at_most=0.25,
    ),
    "graft_big_vs_small": Target("the same on a base of 3 GB ÷ on one of 1 MB", at_most=1.1),
    "graft_ms": Target("median ms of the first, from submit to report"),
    "graft_requests": Target("requests to the registry of the first", at_most=20),
    "graft_base_bytes": Target("bytes of the base image's layers that it moves", at_most=0),
    "weights_bytes": Target(
        "bytes sent for a change of code beside 2 GB of weights, besides the layer of code",
        at_most=65_536,
    ),
    "weights_rss_mb": Target("peak memory of the worker there, in MB", at_most=150),
    "burst_vs_bare": Target(
        "2,000 requests at once over 120 sources ÷ building and pushing the 120 by hand",
        at_most=1.3,
    ),
    "burst_rss_mb": Target("peak memory of one process of the workers there, in MB", at_most=150),
    "burst_kept_kb": Target("what the light worker's main process keeps of a request, in kB"),
    "fleet_dependency_builds": Target(
        "builds that need a builder, of 50 projects with one lock file at once", at_most=1
    ),
    "fleet_seconds": Target("seconds from the first of them submitted to the last report"),
    "metrics_vs_none": Target(
        "CPU of a worker with metrics ÷ without, where the image exists", at_most=1.02
    ),
    "docker_vs_cli": Target(
        "cold build and push of 100 MB ÷ docker build and docker push", at_most=1.10
    ),
}


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write; exit status 1 if a bound is not kept or a module failed."""
    smoke, names = "--smoke" in arguments, [name for name in arguments if name != "--smoke"]
    if unknown := set(names) - set(MODULES):
        print(
            f"No such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}",
            file=sys.stderr,
        )
        return 2
    figures = dict(known_figures()) if names and not smoke else {}
    failed = []
    for name in names or MODULES:
        print(f"benchmarks/{name}.py …", file=sys.stderr, flush=True)
        try:
            for key, figure in measured(name, smoke=smoke):
                figures[key] = figure
                if not smoke:
                    write(figures)
        except subprocess.CalledProcessError as error:
            print(f"benchmarks/{name}.py ended with {error.returncode}", file=sys.stderr)
            failed.append(name)
    show(figures, bounds=not smoke)
    kept = smoke or all(TARGETS[key].met(f) for key, f in figures.items() if key in TARGETS)
    return 0 if kept and not failed else 1


def known_figures() -> Mapping[str, Figure]:
    """The figures of the last run; none if there was none."""
    if not RESULTS.exists():
        return {}
    return {
        key: figure_of(value) for key, value in json.loads(RESULTS.read_text())["figures"].items()
    }


def figure_of(value: Figure | float | Mapping[str, float | None]) -> Figure:
    """A figure from JSON, or from what `measure` gives; a plain number has no spread."""
    if isinstance(value, Figure):
        return value
    if isinstance(value, Mapping):
        return Figure(**cast(dict[str, float], dict(value)))
    return Figure(value, value, value)


def write(figures: Mapping[str, Figure]) -> None:
    """Write what is known by now."""
    document = {"figures": {k: f._asdict() for k, f in figures.items()}, "machine": machine()}
    unfinished = RESULTS.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(document, indent=2) + "\n")
    unfinished.replace(RESULTS)


def measured(name: str, *, smoke: bool) -> Iterator[tuple[str, Figure]]:
    """The figures of one module, from a fresh process, as they come; what it prints besides goes to
    standard error.
    """
    paths = [str(HERE.parent), str(HERE.parent / "scripts"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment |= {SMOKE: "1"} if smoke else {}
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.run", "--measure", name],
        cwd=HERE.parent,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(_MARK):
                key, value = json.loads(line.removeprefix(_MARK))
                yield key, figure_of(value)
            else:
                sys.stderr.write(line)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, name)


def measure_here(name: str) -> None:
    """Print the figures of one module, each as a line of JSON; the counterpart of `measured`."""
    measure = importlib.import_module(f"benchmarks.{name}").measure
    found = measure()
    for key, value in found.items() if isinstance(found, Mapping) else found:
        document = {
            field: number if number is None else round(number, 4)
            for field, number in figure_of(value)._asdict().items()
        }
        print(f"{_MARK}{json.dumps([key, document])}", flush=True)


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    return {
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def show(figures: Mapping[str, Figure], *, bounds: bool) -> None:
    table = Table("figure", "what", "target", "measured", "spread", "CPU", "")
    for key, figure in figures.items():
        target = TARGETS.get(key, Target(""))
        spread = "" if figure.low == figure.high else f"{figure.low:.3g} … {figure.high:.3g}"
        cpu = "" if figure.cpu is None else f"{figure.cpu:.3g}"
        verdict = target.verdict(figure) if bounds else ""
        row = (key, target.meaning, str(target) if bounds else "", f"{figure.value:.3g}")
        table.add_row(*row, spread, cpu, verdict)
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure_here(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
