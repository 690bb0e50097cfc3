"""Two thousand requests at once over 120 sources ÷ what the 120 builds take by hand, two at a time.

All but 120 of the requests wait for another one's build, or find its image. Builds compute little
and take a second each, as one that downloads.
"""

import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from celery.result import AsyncResult

import servers
from benchmarks.docker import command_line
from benchmarks.figures import Figure, ratio, sized, turn
from benchmarks.service import subfolder, worker
from imagemill.client import Client

ROUNDS = sized(3, 1)
REQUESTS = sized(2000, 20)
SOURCES = sized(120, 3)
AT_ONCE = 2
"""Builds, by hand and of the pool for docker."""

LOOK = 0.2
DOCKERFILE = """\
FROM scratch
COPY busybox app.py /bin/
RUN ["/bin/busybox", "sleep", "1"]
"""


@dataclass
class Memory:
    """What the workers' processes have in memory, in bytes."""

    workers: list[psutil.Process]
    peak: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Note the peak of any process until it is `ended`."""
        while not self.ended.wait(LOOK):
            for process in self._all():
                with process.oneshot():
                    self.peak = max(self.peak, process.memory_info().rss)

    def _all(self) -> Iterator[psutil.Process]:
        for each in self.workers:
            yield each
            yield from (child for child in each.children() if child.name() == each.name())


@dataclass(frozen=True)
class Place:
    """What the workers and a person at the command line have in common."""

    client: Client
    registry: str
    engine: str
    light: psutil.Process
    docker: psutil.Process


def measure() -> Iterator[tuple[str, Figure | float]]:
    """`burst_vs_bare` (a ratio of times), `burst_rss_mb` and `burst_kept_kb`."""
    with tempfile.TemporaryDirectory() as name, _place(Path(name)) as place:
        memory = Memory([place.light, place.docker])
        threading.Thread(target=memory.watch, daemon=True).start()
        _burst(place, _projects(Path(name), "warm"), SOURCES)
        before, pairs = place.light.memory_info().rss, []
        for number in range(ROUNDS):
            ours, bare = (_projects(Path(name), f"{side}{number}") for side in ("ours", "bare"))
            pairs.append(
                (
                    turn(partial(_burst, place, ours, REQUESTS)),
                    turn(partial(_by_hand, place, bare)),
                )
            )
        kept = place.light.memory_info().rss - before
        memory.ended.set()
    yield "burst_vs_bare", ratio(pairs)
    yield "burst_rss_mb", memory.peak / 1e6
    yield "burst_kept_kb", kept / ROUNDS / REQUESTS / 1e3


@contextmanager
def _place(folder: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        engine = stack.enter_context(servers.docker_engine(subfolder(folder, "engine")))
        registry = stack.enter_context(servers.docker_registry(subfolder(folder, "registry")))
        broker = stack.enter_context(servers.redis_server(subfolder(folder, "redis")))
        docker = {"IMAGEMILL_DOCKER_HOST": engine, "IMAGEMILL_DOCKER_CLI": servers.docker_cli()}
        light, builder = (
            stack.enter_context(
                worker(folder, broker, queues, docker, name=queues, concurrency=concurrency)
            )
            for queues, concurrency in (("imagemill", 0), ("imagemill.docker", AT_ONCE))
        )
        client = stack.enter_context(Client(broker))
        yield Place(client, registry, engine, psutil.Process(light), psutil.Process(builder))


def _projects(folder: Path, name: str) -> list[Path]:
    """Make sources that nobody has built yet."""
    made = [subfolder(folder, f"{name}-{number}") for number in range(SOURCES)]
    for project in made:
        shutil.copy(servers.busybox(), project / "busybox")
        (project / "app.py").write_text(f"print({project.name!r})\n")
        (project / "Dockerfile").write_text(DOCKERFILE)
    return made


def _burst(place: Place, projects: list[Path], count: int) -> None:
    """Ask for so many builds at once, each source at least once, and return when all have ended."""
    chance = random.Random(count)
    wanted = projects + chance.choices(projects, k=count - len(projects))
    chance.shuffle(wanted)
    builds = [
        place.client.submit(source=str(project), destination=f"{place.registry}/{project.name}")
        for project in wanted
    ]
    built = 0
    for build in builds:
        result: AsyncResult[Any] = AsyncResult(build, app=place.client.app)
        while not result.ready():
            time.sleep(LOOK)
        built += result.get()["built"]
    if built != len(projects):
        raise RuntimeError(f"{built} builds for {len(projects)} sources")


def _by_hand(place: Place, projects: list[Path]) -> None:
    """Build and push each, `AT_ONCE` at a time."""
    deliver = command_line(place.engine)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        names = [f"{place.registry}/{project.name}:1" for project in projects]
        list(pool.map(deliver, projects, names))


if __name__ == "__main__":
    print(*measure(), sep="\n")
