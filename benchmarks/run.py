"""What `make bench` runs: every `measure()` in this folder, a table against the targets, and
results.json.

A figure is a ratio of two things measured in the same run wherever that can be: absolute times are
noise on shared machines. Modules are measured one after another, each in a process of its own, so
that none inherits another's memory, connections or warm caches.

    python benchmarks/run.py            all
    python benchmarks/run.py context    benchmarks/context.py alone; the other figures are kept as they are
"""

import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"


@dataclass(frozen=True)
class Target:
    """What a figure means, and the bound it has to keep."""

    meaning: str
    at_most: float | None = None
    at_least: float | None = None

    def met(self, value: float) -> bool:
        return (self.at_most is None or value <= self.at_most) and (
            self.at_least is None or value >= self.at_least
        )

    def verdict(self, value: float) -> str:
        """Whether the bound is kept, in a word; none where there is no bound."""
        if self.at_most is None and self.at_least is None:
            return ""
        return "met" if self.met(value) else "[red]missed"

    def __str__(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else "-"


TARGETS: Mapping[str, Target] = {
    "hash_vs_sha256": Target("hashing a tree ÷ sha256 of the same bytes in memory", at_most=2.0),
    "pack_vs_tar_pigz": Target("packing a tree ÷ tar | pigz -1", at_most=0.6),
    "pack_rss_mb": Target("peak memory of packing and storing 2 GB, in MB", at_most=150),
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
    "docker_vs_cli": Target(
        "cold build and push of 100 MB ÷ docker build and docker push", at_most=1.10
    ),
}


def main(names: Sequence[str]) -> int:
    """Measure, print and write; exit status 1 if a bound is not kept."""
    modules = sorted(
        path.stem
        for path in HERE.glob("*.py")
        if path != Path(__file__).resolve() and has_measure(path)
    )
    if unknown := set(names) - set(modules):
        print(
            f"No such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(modules)}",
            file=sys.stderr,
        )
        return 2
    figures = dict(known_figures()) if names else {}
    for name in names or modules:
        print(f"benchmarks/{name}.py …", file=sys.stderr, flush=True)
        figures |= measured(name)
    RESULTS.write_text(json.dumps({"figures": figures, "machine": machine()}, indent=2) + "\n")
    show(figures)
    return (
        0 if all(TARGETS[key].met(value) for key, value in figures.items() if key in TARGETS) else 1
    )


def has_measure(path: Path) -> bool:
    """Whether the module takes part: others hold what several of them share."""
    return "\ndef measure(" in path.read_text()


def known_figures() -> Mapping[str, float]:
    """The figures of the last run; none if there was none."""
    if not RESULTS.exists():
        return {}
    return cast(Mapping[str, float], json.loads(RESULTS.read_text())["figures"])


def measured(name: str) -> dict[str, float]:
    """The figures of one module, from a fresh process; what it prints besides goes to standard
    error.
    """
    command = [sys.executable, __file__, "--measure", name]
    done = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=True)
    return cast(dict[str, float], json.loads(done.stdout.splitlines()[-1]))


def measure_here(name: str) -> None:
    """Print the figures of one module as one line of JSON; the counterpart of `measured`."""
    sys.path[:0] = [str(HERE.parent), str(HERE.parent / "scripts")]
    module = importlib.import_module(f"benchmarks.{name}")
    measure = cast(Callable[[], dict[str, float]], module.measure)
    print(json.dumps({key: round(value, 4) for key, value in measure().items()}))


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    return {
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def show(figures: Mapping[str, float]) -> None:
    table = Table("figure", "what", "target", "measured", "")
    for key, value in figures.items():
        target = TARGETS.get(key, Target(""))
        table.add_row(key, target.meaning, str(target), f"{value:.3g}", target.verdict(value))
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure_here(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
