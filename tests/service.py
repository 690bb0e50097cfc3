"""Celery workers of a whole service, as processes, for the tests of the chain."""

import atexit
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import servers
from forked import Forks
from imagemill.client import Client, open_journal
from imagemill.signing import own_keys
from imagemill.state.journal import Journal
from imagemill.state.records import Records
from imagemill.state.seal import Seal

ROOT = Path(__file__).parents[1]
QUEUES = "imagemill,imagemill.docker,imagemill.noop"


QUICK = {
    "IMAGEMILL_RETRY_BACKOFF": "0.2",
    "IMAGEMILL_MAX_RETRIES": "2",
    "IMAGEMILL_WAIT_INTERVAL": "0.2",
    "IMAGEMILL_LOCK_LEASE": "2",
}
"""Settings of workers that do not keep a test waiting."""


@dataclass
class Service:
    """A broker, a Redis for results, and the workers that a test has started."""

    broker: str
    backend: str
    prefix: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @cached_property
    def client(self) -> Client:
        """A client of the service, closed when the service is."""
        return Client(self.broker, self.backend, key_prefix=self.prefix)

    @cached_property
    def journal(self) -> Journal:
        """The journals of its builds."""
        return open_journal(self.client.app, self.backend, self.prefix)

    def records(self, grace: float) -> Records:
        """The records of its builds, with this redelivery time in seconds."""
        return Records(self.journal, grace, Seal(own_keys(self.folder / "state/signing-key")))

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a worker: nothing of the tests' own but the path."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONUNBUFFERED": "1",
            "IMAGEMILL_BROKER": self.broker,
            "IMAGEMILL_BACKEND": self.backend,
            "IMAGEMILL_KEY_PREFIX": self.prefix,
            "IMAGEMILL_STATE_DIR": str(self.folder / "state"),
            "IMAGEMILL_SOURCE_ROOTS": str(self.folder),
            **QUICK,
            **self.settings,
        }

    @property
    def log(self) -> str:
        """What all workers have logged."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("worker-*.log")))

    def start(
        self,
        name: str = "all",
        *,
        queues: str = QUEUES,
        pool: str = "prefork",
        concurrency: int = 2,
    ) -> int:
        """Start a worker and wait until it takes tasks; returns its process id."""
        command = servers.worker_command(f"{name}@test", queues, pool, concurrency, "-E")
        worker = start_worker(command, self.environment, self.folder / f"worker-{name}.log")
        self.workers.append(worker)
        until(
            lambda: worker.poll() is not None or f"{name}@test" in self.client.workers(),
            f"worker {name}",
            lambda: self.log,
        )
        assert worker.returncode is None, self.log
        return worker.pid

    @property
    def metrics(self) -> str:
        """What the worker says to whoever measures it, at the port of `settings`."""
        port = self.settings["IMAGEMILL_METRICS_PORT"]
        return urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()  # type: ignore[no-any-return]

    def kill(self, pid: int) -> None:
        """Kill a worker with all its processes, as when its node is lost."""
        os.killpg(pid, signal.SIGKILL)
        next(worker for worker in self.workers if worker.pid == pid).wait()

    def end(self, pid: int, within: float) -> None:
        """Tell a worker to end, as a rolling update does; it has to within so many seconds."""
        os.kill(pid, signal.SIGTERM)
        next(worker for worker in self.workers if worker.pid == pid).wait(within)

    @contextmanager
    def monitored(self) -> Iterator[list[dict[str, Any]]]:
        """The events that the workers send to Flower while the block runs."""
        seen: list[dict[str, Any]] = []
        with self.client.app.connection_for_read() as connection:
            receiver = self.client.app.events.Receiver(connection, handlers={"*": seen.append})
            thread = threading.Thread(
                target=receiver.capture, kwargs={"limit": None, "timeout": None}, daemon=True
            )
            thread.start()
            until(lambda: bool(seen), "a sign of life of the worker")
            try:
                yield seen
            finally:
                receiver.should_stop = True
                thread.join()

    def stop(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        self.journal.redis.close()
        self.client.close()


def start_worker(
    command: Sequence[str], environment: Mapping[str, str], log: Path, checkout: Path = ROOT
) -> "subprocess.Popen[bytes]":
    """Start a worker as `servers.start_worker` does, but as a fork."""
    with log.open("ab") as output:
        return forks_of_workers().start(
            *command,
            cwd=checkout,
            env=dict(environment),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


@cache
def forks_of_workers() -> Forks:
    """What starts workers: it has imported what they do by the time that they are ready, and what
    takes longest of what some import for their builder or store.
    """
    forks = Forks(
        "celery.bin.celery",
        "celery.concurrency.prefork",
        "celery.worker.consumer",
        "celery.backends.redis",
        "kombu.matcher",
        "kombu.transport.redis",
        "cffi.cparser",
        "worker.app",
        "tasks.all",
        "jsonschema",
        "imagemill.builders.docker.builder",
        "imagemill.builders.graft.planning",
        "imagemill.builders.kaniko.builder",
        "imagemill.dockerfile.generate.entrypoint",
        "imagemill.objects.azure",
        "imagemill.objects.gcs",
        "imagemill.objects.s3",
        "imagemill.sources.git.checkout",
    )
    atexit.register(forks.close)
    return forks


@contextmanager
def service(
    broker: str, backend: str, prefix: str, folder: Path, **settings: str
) -> Iterator[Service]:
    """A service without workers yet; its workers are gone at the end. `settings` are environment
    variables.
    """
    running = Service(broker, backend, prefix, folder, settings)
    try:
        yield running
    finally:
        running.stop()


def until(
    condition: Callable[[], bool],
    what: str,
    explain: Callable[[], object] = str,
    seconds: float = 60,
) -> None:
    """Poll until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come about: {explain()}"
        time.sleep(0.02)
