"""What a build whose image exists costs here ÷ in another checkout, in CPU time of the workers.

    python -m benchmarks.against CHECKOUT    a checkout of another commit

Both have a worker on the same Redis and the same registry, with the packages of this environment,
and take turns. Requests go to the entry as any Celery client sends them.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from celery import Celery

import servers
from benchmarks.chain import POLL, small_project
from benchmarks.figures import sized
from benchmarks.service import ROOT, subfolder, worker
from imagemill.client import Client

BUILDS = sized(100, 5)
PAIRS = sized(15, 1)


@dataclass(frozen=True)
class Side:
    """A worker, and how to ask it for a build."""

    app: Celery
    worker: psutil.Process
    request: dict[str, Any]

    def cpu_ms(self) -> float:
        """CPU time of a build, user and system, in milliseconds."""
        before = self._cpu()
        self.build(BUILDS)
        return (self._cpu() - before) / BUILDS * 1000

    def build(self, count: int) -> None:
        """Ask for so many builds at once, and return when all have ended."""
        send = partial(self.app.send_task, "imagemill.build_image", queue="imagemill")
        for result in [send(kwargs={"request": self.request}) for _ in range(count)]:
            while not result.ready():
                time.sleep(POLL)
            report = result.get()
            if report["status"] != "succeeded":
                raise RuntimeError(str(report))

    def _cpu(self) -> float:
        family = (self.worker, *self.worker.children(recursive=True))
        return sum(sum(process.cpu_times()[:4]) for process in family)


def pairs(other: Path) -> Iterator[tuple[float, float]]:
    """CPU milliseconds of a build: the other's and ours, in turns."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        engine = stack.enter_context(servers.docker_engine(subfolder(folder, "engine")))
        registry = stack.enter_context(servers.docker_registry(subfolder(folder, "registry")))
        broker = stack.enter_context(servers.redis_server(subfolder(folder, "redis")))
        request = small_project(folder, registry)
        sides = [
            stack.enter_context(_side(checkout, folder, broker, engine, request))
            for checkout in (other, ROOT)
        ]
        for side in sides:
            side.build(1)
            side.build(BUILDS)
        for number in range(PAIRS):
            order = sides if number % 2 else sides[::-1]
            taken = {id(side): side.cpu_ms() for side in order}
            yield taken[id(sides[0])], taken[id(sides[1])]


@contextmanager
def _side(
    checkout: Path, folder: Path, broker: str, engine: str, request: dict[str, Any]
) -> Iterator[Side]:
    prefix = "ours:" if checkout == ROOT else "other:"
    settings = {
        "IMAGEMILL_KEY_PREFIX": prefix,
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": servers.docker_cli(),
        "IMAGEMILL_SOURCE_ROOTS": str(folder),
    }
    home, queues = subfolder(folder, prefix.strip(":")), "imagemill,imagemill.docker"
    with (
        worker(home, broker, queues, settings, checkout=checkout) as pid,
        Client(broker, key_prefix=prefix) as client,
    ):
        own = {**request, "destination": f"{request['destination']}-{home.name}"}
        yield Side(client.app, psutil.Process(pid), own)


def main() -> None:
    """Print each pair, and the median ratio of them all with its spread."""
    ratios = []
    for theirs, ours in pairs(Path(sys.argv[1]).resolve()):
        ratios.append(ours / theirs)
        print(f"{theirs:6.2f} ms, here {ours:6.2f} ms: {ratios[-1]:.3f}", flush=True)
    print(f"here ÷ there: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
