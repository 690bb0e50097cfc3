"""What supervising builds in a cluster takes: from a Job's end to its digest, and 200 builds on one worker.

The cluster is the API server of the tests, in this process, which also plays the Job's controller and the kubelet. The
builds run in a process of their own, so that its memory and its connections are theirs alone. Log lines are written
while they run, as many as a real build has in a few minutes.
"""

import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from imagemill.builders import Workplace  # noqa: E402
from imagemill.builders.kaniko.builder import KanikoBuilder  # noqa: E402
from imagemill.config.model import KanikoBuilder as Section  # noqa: E402
from imagemill.contexts import Packed  # noqa: E402
from imagemill.ports import BuildInputs, Quiet  # noqa: E402
from imagemill.reference import ImageReference  # noqa: E402
from imagemill.registries.docker_config import DockerConfig  # noqa: E402
from imagemill.registries.oci import OciRegistry  # noqa: E402
from kubernetes_server import KubernetesServer  # noqa: E402

POOL = 200
SINGLE = 20
LINES = 500
BATCH = 50

DESTINATION = "registry.example.com/bench/app"


def measure() -> dict[str, float]:
    """`kaniko_end_to_report_ms` (a median: from the Job's end to the builder's digest) and `kaniko_pool_200_…`.

    Of the pool: peak memory in MB and most connections of the process that supervises, and seconds from the first
    build's start to the last one's digest.
    """
    single = [_ends(1)[0] for _ in range(SINGLE)]
    _, pool = _ends(POOL)
    return {"kaniko_end_to_report_ms": statistics.median(end for ends in single for end in ends) * 1000, **pool}


def _ends(builds: int) -> tuple[list[float], dict[str, float]]:
    """Seconds from each Job's end to the builder's, and what the worker needed for them all at once."""
    with tempfile.TemporaryDirectory() as folder, KubernetesServer(Path(folder)) as server:
        with _worker(server, builds) as worker, _connections(server, worker.pid) as most:
            ended = _play(server, builds)
            assert worker.stdout is not None
            told = json.loads(worker.stdout.readline())
        ends = [told["returned"][name] - at for name, at in ended.items()]
        figures = {"rss_mb": told["rss_mb"], "connections": float(max(most)), "seconds": told["seconds"]}
        return ends, {f"kaniko_pool_{builds}_{name}": value for name, value in figures.items()}


def _play(server: KubernetesServer, builds: int) -> dict[str, float]:
    """Let all Jobs run and end; returns when each ended, by its source hash."""
    while len(server.jobs()) < builds:
        time.sleep(0.01)
    jobs = server.jobs()
    pods = [server.run_pod(server.start_pod(job)) for job in jobs]
    for batch in range(0, LINES, BATCH):
        for pod in pods:
            server.log(pod, [f"line {batch + line} of a build that says something" for line in range(BATCH)])
    ended = {}
    for job in jobs:
        server.finish(job, 0, f"sha256:{'d1' * 32}")
        ended[job["metadata"]["annotations"]["dev.imagemill/source-hash"]] = time.time()
    return ended


@contextmanager
def _worker(server: KubernetesServer, builds: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.kaniko", str(server.kubeconfig), str(builds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")])}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as worker:
        try:
            yield worker
        finally:
            worker.terminate()


@contextmanager
def _connections(server: KubernetesServer, pid: int) -> Iterator[list[int]]:
    """How many connections the process had to the server, asked again and again."""
    port, process, found, over = urlsplit(server.url).port, psutil.Process(pid), [0], threading.Event()

    def count() -> None:
        while not over.wait(0.05):
            opened = process.net_connections("tcp")
            found.append(sum(each.status == psutil.CONN_ESTABLISHED and each.raddr.port == port for each in opened))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _supervise(kubeconfig: Path, builds: int, out: IO[str]) -> None:
    """The worker: run builds at once, one thread each, and tell when each came back, and what that took."""
    config = DockerConfig(kubeconfig.parent / "none")
    place = Workplace(kubeconfig.parent, config, environment={"KUBECONFIG": str(kubeconfig)})
    settings: dict[str, Any] = {"destination": DESTINATION, "build_context_store": "s3://bench/contexts"}
    section, registry = Section.model_validate(settings), OciRegistry(config)

    def build(number: int) -> tuple[str, float]:
        source_hash = f"{number:064x}"[::-1]
        inputs = BuildInputs(ImageReference.parse(f"{DESTINATION}:{source_hash}"), source_hash=source_hash)
        context = Packed(io.BytesIO, f"s3://bench/contexts/{source_hash}.tar.gz")
        progress = Quiet()
        KanikoBuilder(place, section).build(inputs, context, registry, progress)
        returned = time.time()
        lines = sum(line.startswith("line ") for line in progress.lines)
        if lines != LINES:
            raise RuntimeError(f"{lines} lines of the log came through, not {LINES}")
        return source_hash, returned

    begun = time.perf_counter()
    with ThreadPoolExecutor(builds) as pool:
        returned = dict(pool.map(build, range(builds)))
    seconds, peak = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"returned": returned, "seconds": seconds, "rss_mb": peak / 1024}), file=out, flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        _supervise(Path(sys.argv[1]), int(sys.argv[2]), sys.stdout)
    else:
        print(measure())
