"""What metrics cost a worker on the path that most requests go: the image exists."""

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

import servers
from benchmarks.figures import Figure, sized
from benchmarks.service import ROOT, subfolder, worker
from imagemill.client import Client

sys.path[:0] = [str(ROOT / "tests")]

from images import Pusher  # noqa: E402

BUILDS = sized(30, 2)
ROUNDS = sized(9, 1)
CONFIG = "builder: {{type: noop, destination: {registry}/bench}}\n"


def measure() -> Iterator[tuple[str, Figure | float]]:
    """`metrics_vs_none`: CPU of a worker that is measured ÷ of one that is not, in turns."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        registry = stack.enter_context(servers.docker_registry(subfolder(folder, "registry")))
        project = subfolder(folder, "project")
        (project / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
        (folder / "config.yaml").write_text(CONFIG.format(registry=registry))
        metered, plain = (
            stack.enter_context(_worker(folder, side, port, registry))
            for side, port in (("metered", str(servers.free_port())), ("plain", ""))
        )
        rounds = [(metered.batch(project), plain.batch(project)) for _ in range(ROUNDS + 1)]
        # The first round warms up the workers' processes.
        found = sorted(one / other for one, other in rounds[1:])
        yield "metrics_vs_none", Figure(statistics.median(found), found[0], found[-1])


class _Side:
    """A worker, and what its processes have worked."""

    def __init__(self, client: Client, pid: int) -> None:
        self._client, self._worker = client, psutil.Process(pid)

    def batch(self, project: Path) -> float:
        """Return the CPU seconds of the worker's processes for BUILDS builds."""
        before = self._cpu()
        for build in [self._client.submit(project) for _ in range(BUILDS)]:
            self._client.wait(build, timeout=300).raise_for_status()
        return self._cpu() - before

    def _cpu(self) -> float:
        processes = (self._worker, *self._worker.children(recursive=True))
        return sum(sum(process.cpu_times()[:2]) for process in processes)


@contextlib.contextmanager
def _worker(folder: Path, side: str, port: str, registry: str) -> Iterator[_Side]:
    """A worker with a Redis of its own, which knows that the project's image is in the registry."""
    own = subfolder(folder, side)
    settings = {
        "IMAGEMILL_CONFIG": str(folder / "config.yaml"),
        "IMAGEMILL_SOURCE_ROOTS": str(folder),
        "IMAGEMILL_METRICS_PORT": port,
    }
    with (
        servers.redis_server(subfolder(own, "redis")) as broker,
        worker(own, broker, "imagemill,imagemill.noop", settings, concurrency=2) as pid,
        Client(broker) as client,
    ):
        asked = client.submit(folder / "project")
        client.wait(asked, timeout=120)
        Pusher(registry, "bench").image(client.source_hash(asked))
        yield _Side(client, pid)
