"""A whole service for a benchmark: Redis, an engine, a registry and workers."""

import os
import time
from collections.abc import Iterator, Mapping
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
    broker: str


@contextmanager
def service(folder: Path, **settings: str) -> Iterator[Service]:
    """A service that may read `folder`; everything ends with the block. `settings` are environment
    variables of its worker.
    """
    with ExitStack() as stack:
        engine = stack.enter_context(servers.docker_engine(subfolder(folder, "engine")))
        registry = stack.enter_context(servers.docker_registry(subfolder(folder, "registry")))
        broker = stack.enter_context(servers.redis_server(subfolder(folder, "redis")))
        docker = {"IMAGEMILL_DOCKER_HOST": engine, "IMAGEMILL_DOCKER_CLI": servers.docker_cli()}
        queues = "imagemill,imagemill.docker"
        stack.enter_context(worker(folder, broker, queues, docker | settings))
        yield Service(Client(broker), registry, engine, broker)


@contextmanager
def worker(
    folder: Path,
    broker: str,
    queues: str,
    settings: Mapping[str, str],
    *,
    pool: str = "prefork",
    name: str = "",
    concurrency: int = 0,
    checkout: Path = ROOT,
) -> Iterator[int]:
    """The process id of a worker that takes tasks; `settings` are environment variables.

    Its `concurrency` is a worker's default (worker/celeryconfig.py), if it is not given. The code is
    that of `checkout`.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "IMAGEMILL_BROKER": broker,
        "IMAGEMILL_SOURCE_ROOTS": str(folder),
        **settings,
    }
    name = f"{name or pool}@benchmark"
    tasks = ("-I", "benchmarks.empty")
    command = servers.worker_command(name, queues, pool, concurrency, *tasks)
    prefix = settings.get("IMAGEMILL_KEY_PREFIX")
    log, client = folder / f"{name}.log", Client(broker, key_prefix=prefix)
    process = servers.start_worker(command, environment, log, checkout)
    try:
        while name not in client.workers():
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


def subfolder(folder: Path, name: str) -> Path:
    """A folder in a folder, made if it is not there."""
    path = folder / name
    path.mkdir(exist_ok=True)
    return path
