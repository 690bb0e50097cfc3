"""What builds in a cluster take: from a Job's end to its build's report, and 200 builds on one
worker.

The whole chain runs: a light worker and one for Kaniko, Redis, a registry, and the API server of
the tests, in whose cluster this process plays the Job's controller, the kubelet and Kaniko. Each
build writes as many lines as a real one does in a few minutes.
"""

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

import servers
from benchmarks.figures import sized
from benchmarks.service import ROOT, subfolder, worker
from chaos.builders import KANIKO
from imagemill.client import Client
from imagemill.reference import ImageReference

sys.path[:0] = [str(ROOT / "tests")]

from images import Pusher  # noqa: E402
from kubernetes_server import KubernetesServer  # noqa: E402

POOL = sized(200, 5)
SINGLE = sized(15, 2)
LINES = sized(500, 50)
BATCH = 50
TIMEOUT = 300.0
SAMPLE = 0.1
"""Seconds between two looks at the worker."""

IMAGE = "dev.imagemill/image"


@dataclass
class Running:
    """A service whose Kaniko worker has as many threads as there are builds, and the cluster that
    it builds in.
    """

    folder: Path
    client: Client
    cluster: KubernetesServer
    worker: "Observed"

    def submit(self, number: int) -> str:
        """Ask for the build of a source that nobody else has; returns its id."""
        project = subfolder(self.folder, f"project{number}")
        (project / "Dockerfile").write_text(f"FROM scratch\nLABEL number={number}\nCOPY . /\n")
        return self.client.submit(source=str(project))

    def jobs(self, builds: int) -> list[dict[str, Any]]:
        """The Jobs of the builds that run, once there are so many."""
        while len(jobs := self.cluster.jobs()) != builds:
            time.sleep(0.01)
        return jobs

    def run(self, jobs: list[dict[str, Any]]) -> None:
        """Let all of them run at once, and write their logs."""
        pods = [self.cluster.run_pod(self.cluster.start_pod(job)) for job in jobs]
        for batch in range(0, LINES, BATCH):
            for pod in pods:
                self.cluster.log(
                    pod,
                    [
                        f"line {batch + line} of a build that says something"
                        for line in range(BATCH)
                    ],
                )

    def lines(self, build: str) -> int:
        """How many lines of Kaniko's are in the build's log."""
        return sum(line.startswith("line ") for line in self.client.logs(build))


def measure() -> dict[str, float]:
    """`kaniko_end_to_report_ms`: a median, from a Job's end to the build's report, and
    `kaniko_pool_200_…`.

    Of the pool, of the worker's process: peak memory in MB and most connections to the API server
    and to Redis; and seconds from the first request to the last report, and from the first Job's
    end to the last report.
    """
    with _running(1) as running:
        ends = [_end_to_report(running, number) for number in range(SINGLE + 1)]
    with _running(POOL) as running:
        pool = _pool(running)
    # The first build imports what the worker needs.
    return {"kaniko_end_to_report_ms": statistics.median(ends[1:]) * 1000, **pool}


def _end_to_report(running: Running, number: int) -> float:
    """Seconds, of a build that is alone, and whose log has been handed on before its Job ends."""
    build = running.submit(number)
    (job,) = jobs = running.jobs(1)
    running.run(jobs)
    digest = _push(job)
    while running.lines(build) < LINES:
        time.sleep(0.01)
    begun = time.perf_counter()
    running.cluster.finish(job, 0, digest)
    running.client.wait(build, timeout=TIMEOUT).raise_for_status()
    seconds = time.perf_counter() - begun
    running.jobs(0)
    return seconds


def _pool(running: Running) -> dict[str, float]:
    begun = time.perf_counter()
    builds = [running.submit(number) for number in range(POOL)]
    jobs = running.jobs(POOL)
    running.run(jobs)
    digests = [_push(job) for job in jobs]
    ended = time.perf_counter()
    for job, digest in zip(jobs, digests, strict=True):
        running.cluster.finish(job, 0, digest)
    for build in builds:
        running.client.wait(build, timeout=TIMEOUT).raise_for_status()
    over = time.perf_counter()
    if incomplete := [build for build in builds if running.lines(build) != LINES]:
        raise RuntimeError(f"the logs of {len(incomplete)} builds are not complete")
    figures = {**running.worker.most, "seconds": over - begun, "ends_seconds": over - ended}
    return {f"kaniko_pool_{POOL}_{name}": value for name, value in figures.items()}


def _push(job: dict[str, Any]) -> str:
    """Push an image to where the Job is to; returns its digest."""
    image = ImageReference.parse(job["metadata"]["annotations"][IMAGE])
    return Pusher(image.registry, image.path).image(image.tag or "")


@contextmanager
def _running(builds: int) -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            servers.docker_registry(subfolder(folder, "registry")) as registry,
            servers.redis_server(subfolder(folder, "redis")) as redis,
            KubernetesServer(subfolder(folder, "cluster")) as cluster,
        ):
            config = folder / "launch-config.yaml"
            config.write_text(
                KANIKO.format(registry=registry, store=(folder / "contexts").as_uri())
            )
            settings = {"IMAGEMILL_CONFIG": str(config), "KUBECONFIG": str(cluster.kubeconfig)}
            with (
                worker(folder, redis, "imagemill", settings),
                worker(
                    folder, redis, "imagemill.kaniko", settings, pool="threads", concurrency=builds
                ) as pid,
                observed(pid, connections=cluster.url, redis_connections=redis) as seen,
            ):
                yield Running(folder, Client(redis), cluster, seen)


@dataclass
class Observed:
    """A process, and the most that it was seen to have."""

    process: psutil.Process
    ports: dict[str, int]
    most: dict[str, float] = field(default_factory=dict)

    def look(self) -> None:
        peers = [
            each.raddr.port
            for each in self.process.net_connections("tcp")
            if each.status == "ESTABLISHED"
        ]
        now = {"rss_mb": self.process.memory_info().rss / (1 << 20)}
        now |= {name: float(peers.count(port)) for name, port in self.ports.items()}
        self.most = {name: max(value, self.most.get(name, 0.0)) for name, value in now.items()}


@contextmanager
def observed(pid: int, **urls: str) -> Iterator[Observed]:
    """Look at a process again and again: at its memory and its connections to each URL."""
    seen = Observed(
        psutil.Process(pid), {name: urlsplit(url).port or 0 for name, url in urls.items()}
    )
    over = threading.Event()

    def look() -> None:
        while not over.wait(SAMPLE):
            seen.look()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    print(measure())
