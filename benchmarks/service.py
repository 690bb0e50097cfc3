"""A whole service for a benchmark: Redis, an engine, a registry and one worker."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import servers
from imagemill.client import Client

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Service:
    """How to reach it."""

    client: Client
    registry: str
    engine: str


@contextmanager
def service(folder: Path) -> Iterator[Service]:
    """A service that may read `folder`; everything ends with the block."""
    with ExitStack() as stack:
        engine = stack.enter_context(servers.docker_engine(subfolder(folder, "engine")))
        registry = stack.enter_context(servers.docker_registry(subfolder(folder, "registry")))
        broker = stack.enter_context(servers.redis_server(subfolder(folder, "redis")))
        client = Client(broker)
        stack.enter_context(_worker(folder, broker, engine, client))
        yield Service(client, registry, engine)


@contextmanager
def _worker(folder: Path, broker: str, engine: str, client: Client) -> Iterator[None]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "IMAGEMILL_BROKER": broker,
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": servers.docker_cli(),
        "IMAGEMILL_SOURCE_ROOTS": str(folder),
    }
    command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-I", "benchmarks.empty"]
    command += ["-Q", "imagemill,imagemill.docker", "-c", str(os.cpu_count() or 2)]
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        while not client.workers(timeout=0.5):
            if worker.poll() is not None:
                raise RuntimeError((folder / "worker.log").read_text())
        yield
    finally:
        worker.terminate()
        worker.wait(timeout=30)


def subfolder(folder: Path, name: str) -> Path:
    """A folder in a folder, made if it is not there."""
    path = folder / name
    path.mkdir(exist_ok=True)
    return path
