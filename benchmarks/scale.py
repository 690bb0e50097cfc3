"""How the service grows: what a build costs Redis and its workers, measured here, and a simulation
of a day with many workers from these costs. docs/scale.md is written from it.

    python -m benchmarks.scale            prints the figures and the table of docs/scale.md
    python -m benchmarks.scale --write    writes the table into docs/scale.md
"""

import heapq
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from redis import Redis

from benchmarks.chain import small_project
from benchmarks.figures import sized
from benchmarks.service import ROOT, service
from imagemill.client import Client

PAGE = ROOT / "docs/scale.md"
BUILDS = sized(200, 10)
"""Builds of an existing image over which costs are averaged."""


@dataclass(frozen=True)
class Costs:
    """What one build takes, on the path where the image exists, and what remains of it."""

    commands: float
    """Commands of Redis, those that scripts run among them."""
    redis_ms: float
    """CPU time of Redis, in milliseconds."""
    light_ms: float
    """CPU time of the light pool, in milliseconds."""
    kept_bytes: float
    """Memory of Redis for a build that has ended, for as long as it is kept."""


@dataclass(frozen=True)
class Load:
    """A day of an installation: how much comes, and what there is to do it."""

    builds: int
    """Requests a day."""
    built: float
    """The share of them whose image is not there yet."""
    light: int
    """Processes of the light pools."""
    builders: int
    """Builds that the builder pools run at once."""
    build_seconds: float = 90.0
    """Median time of a build; a tenth takes more than four times as long."""
    peak: float = 3.0
    """How many times the mean rate the busiest hour has."""


@dataclass(frozen=True)
class Day:
    """What the busiest hour of a day comes to. Times are in seconds."""

    redis_cpu: float
    """Share of one core that Redis takes: it cannot take more than 1."""
    redis_commands: float
    """Commands a second."""
    redis_bytes: float
    """Memory of all builds of a day, which are kept for a day."""
    light_p99: float
    """Wait for a light worker that 99 of 100 requests stay below."""
    build_p50: float
    build_p99: float
    """Wait for a builder."""


def measure() -> dict[str, float]:
    """`build_redis_commands`, `build_redis_ms`, `build_light_ms`, `build_redis_bytes`."""
    costs = measured()
    return {
        "build_redis_commands": costs.commands,
        "build_redis_ms": costs.redis_ms,
        "build_light_ms": costs.light_ms,
        "build_redis_bytes": costs.kept_bytes,
    }


def measured() -> Costs:
    """Return the costs of a build whose image exists, through a whole service."""
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as running:
        client, request = running.client, small_project(Path(folder), running.registry)
        redis: Redis = Redis.from_url(client.app.conf.broker_url)
        _builds(client, request, 20)
        before = _usage(redis)
        _builds(client, request, BUILDS)
        after = _usage(redis)
    commands, cpu, memory, light = (
        (late - early) / BUILDS for early, late in zip(before, after, strict=True)
    )
    return Costs(commands, cpu * 1000, light * 1000, memory)


def _builds(client: Client, request: dict[str, Any], count: int) -> None:
    for build in [client.submit(**request) for _ in range(count)]:
        client.wait(build, timeout=120).raise_for_status()


def _usage(redis: Redis) -> tuple[float, float, float, float]:
    """Commands, CPU seconds and bytes of Redis, and CPU seconds of our descendants' Celery."""
    statistic: Any = redis.info("commandstats")
    server: Any = redis.info()
    celery = [
        process
        for process in psutil.Process().children(recursive=True)
        if "celery" in " ".join(process.cmdline())
    ]
    return (
        sum(each["calls"] for each in statistic.values()),
        server["used_cpu_user"] + server["used_cpu_sys"],
        server["used_memory"],
        sum(sum(process.cpu_times()[:2]) for process in celery),
    )


def simulate(load: Load, costs: Costs, seed: int = 0) -> Day:
    """Return the busiest hour of a day: requests come at random, first come, first served."""
    chance = random.Random(seed)
    rate = load.builds / 86400 * load.peak
    arrivals = list(_arrivals(chance, rate, 3600))
    light_seconds = costs.light_ms / 1000
    light = _waits(arrivals, [light_seconds] * len(arrivals), load.light)
    begun = [
        at + wait + light_seconds
        for at, wait in zip(arrivals, light, strict=True)
        if chance.random() < load.built
    ]
    # A tenth takes more than four times the median: log-normal with this deviation.
    deviation = math.log(4) / 1.2816
    seconds = [load.build_seconds * math.exp(chance.gauss(0, deviation)) for _ in begun]
    builders = _waits(begun, seconds, load.builders)
    return Day(
        redis_cpu=rate * costs.redis_ms / 1000,
        redis_commands=rate * costs.commands,
        redis_bytes=load.builds * costs.kept_bytes,
        light_p99=_percentile(light, 99),
        build_p50=_percentile(builders, 50),
        build_p99=_percentile(builders, 99),
    )


def _arrivals(chance: random.Random, rate: float, seconds: float) -> Iterator[float]:
    at = chance.expovariate(rate)
    while at < seconds:
        yield at
        at += chance.expovariate(rate)


def _waits(arrivals: Sequence[float], seconds: Sequence[float], servers: int) -> list[float]:
    """How long each waits in one queue before so many servers, of which each takes one at a time."""
    free = [0.0] * servers
    waits = []
    for at, takes in zip(sorted(arrivals), seconds, strict=True):
        begin = max(at, heapq.heappop(free))
        waits.append(begin - at)
        heapq.heappush(free, begin + takes)
    return waits


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1] if len(values) > 1 else 0.0


LOADS = (
    Load(builds=1_000, built=0.3, light=4, builders=4),
    Load(builds=10_000, built=0.2, light=4, builders=14),
    Load(builds=100_000, built=0.1, light=8, builders=64),
    Load(builds=1_000_000, built=0.05, light=40, builders=300),
)
"""From one machine to a hundred workers."""


def table(costs: Costs) -> list[str]:
    """Return the table of docs/scale.md."""
    lines = [
        "| builds a day | of them built | light processes | builds at once | Redis: commands a second,"
        " of one core | Redis: memory | wait for a light worker (p99) | wait for a builder (p50, p99) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for load in LOADS:
        day = simulate(load, costs)
        lines.append(
            f"| {load.builds:,} | {load.built:.0%} | {load.light} | {load.builders} "
            f"| {day.redis_commands:,.0f}, {day.redis_cpu:.1%} | {day.redis_bytes / 1e6:,.0f} MB "
            f"| {day.light_p99:.2f} s | {day.build_p50:.0f} s, {day.build_p99:.0f} s |"
        )
    return lines


def _main() -> None:
    costs = measured()
    rows = table(costs)
    print(costs, *rows, sep="\n")
    if "--write" in sys.argv:
        text = PAGE.read_text()
        begin, end = text.index("| builds a day"), text.index("\n\n", text.index("| builds a day"))
        PAGE.write_text(text[:begin] + "\n".join(rows) + text[end:])


if __name__ == "__main__":
    _main()
