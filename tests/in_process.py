"""A whole service in the process of the test: what has been sent runs when the test says so, one
task after the other, on a Redis and a registry of the same process.

A task runs as Celery's pools run it, so that its result, its retries and what becomes of its
failure are as on a worker; what is not here are the worker's own loop and its processes.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app.trace import build_tracer
from celery.contrib.testing.app import setup_default_app
from celery.result import denied_join_result
from fakeredis import TcpFakeServer

import tasks.all  # noqa: F401  # the tasks are those of every application, also of those that come later
from imagemill.client import Client
from imagemill.messages import BuildReport
from imagemill.names import LIGHT, POOLS, STEPS
from imagemill.sources.options import SourceOptions
from tasks.settings import journal
from worker.celeryconfig import configuration
from worker.reaper import Reaper
from worker.settings import Settings
from worker.tenants import entries, steps, tenants_of

QUEUES = (STEPS, *(queue for pool in ("light", "docker", "kaniko") for queue in POOLS[pool].queues))


@contextmanager
def fake_redis() -> Iterator[str]:
    """The URL of a Redis of this process."""
    server = TcpFakeServer(("127.0.0.1", 0))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Service:
    """The service; `folder` is where its sources and its state are."""

    app: Celery
    settings: Settings
    folder: Path

    @cached_property
    def client(self) -> Client:
        """A client of the service."""
        return Client(self.settings.broker, key_prefix=self.settings.key_prefix)

    @cached_property
    def queues(self) -> tuple[str, ...]:
        """All queues, with those of tenants; steps of builds that have begun come first."""
        tenants = tenants_of(self.settings)
        return (*QUEUES, *entries(tenants), *(name for name, _ in steps(tenants)))

    @cached_property
    def _channel(self) -> Any:
        channel: Any = self.app.connection_for_read().channel()
        for queue in self.queues:
            channel.queue_declare(queue)
        return channel

    @cached_property
    def reaper(self) -> Reaper:
        """What sends what was to be sent later."""
        return Reaper(self.app)

    def source(self, **files: str) -> Path:
        """A folder with a Dockerfile, and these files."""
        found = self.folder / f"source-{uuid.uuid4().hex}"
        found.mkdir()
        for name, content in {"Dockerfile": "FROM scratch\nCOPY . /\n", **files}.items():
            (found / name).write_text(content)
        return found

    def step(self, queues: tuple[str, ...] = ()) -> str | None:
        """Run the first task that waits, in any queue or in these, and return its name; None if none
        does.
        """
        message = self.taken(queues)
        if message is None:
            return None
        self.run(message)
        return str(message["headers"]["task"]).removeprefix("imagemill.")

    def taken(self, queues: tuple[str, ...] = ()) -> dict[str, Any] | None:
        """The message that is first in the queues: its `headers` and its `body`."""
        for queue in queues or self.queues:
            if found := self._channel.basic_get(queue, no_ack=True):
                return {"headers": found.headers, "body": found.payload, "queue": queue}
        return None

    def run(self, message: dict[str, Any]) -> None:
        """Run a task as a pool does."""
        headers, (arguments, keywords, embedded) = message["headers"], message["body"]
        request = {
            **headers,
            **embedded,
            "args": arguments,
            "kwargs": keywords,
            "hostname": "worker@test",
            "delivery_info": {"routing_key": message["queue"]},
        }
        task = self.app.tasks[headers["task"]]
        tracer = build_tracer(task.name, task, app=self.app, hostname="worker@test")
        # What a task binds for its process must not outlast it here.
        copy_context().run(tracer, headers["id"], arguments, keywords, request)

    def run_all(self) -> list[str]:
        """Run what waits until nothing does, and return the names of the tasks; what is to be sent
        later is sent when its time has come.
        """
        ran = []
        self.reaper.send_later()
        while found := self.step():
            ran.append(found)
            self.reaper.send_later()
        return ran

    def call(self, task: str, **keywords: Any) -> str:
        """Send a task as other services do, and return its id; `options` are Celery's."""
        options = {"queue": LIGHT, **keywords.pop("options", {})}
        sent = self.client.app.send_task(task, kwargs=keywords, **options)
        return str(sent.id)

    def result(self, task: str) -> Any:
        """The result of a task that has ended; its error is raised."""
        found: Any = self.app.backend.get_task_meta(task, cache=False)
        if found["status"] == "FAILURE":
            raise found["result"]
        assert found["status"] == "SUCCESS", found
        return found["result"]

    def build(self, source: object, destination: str | None = None, **asked: Any) -> BuildReport:
        """Have an image built; returns the report."""
        return self.finished(self.client.submit(str(source), destination, **asked))

    def finished(self, build: str) -> BuildReport:
        """Run what waits until the build has ended."""
        for _ in range(2000):
            self.run_all()
            if report := journal().report(build):
                return report
            time.sleep(0.02)
        raise AssertionError(f"{build} does not end: {self.client.status(build)}")


@contextmanager
def service(folder: Path, config: str, **settings: Any) -> Iterator[Service]:
    """A service of its own for the block, with this launch config, on a worker with these settings."""
    with fake_redis() as url:
        yield from _service(url, folder, config, settings)


def _service(url: str, folder: Path, config: str, settings: dict[str, Any]) -> Iterator[Service]:
    path = folder / "launch-config.yaml"
    path.write_text(config)
    given = {
        "broker": url,
        "key_prefix": f"test-{uuid.uuid4().hex}:",
        "state_dir": folder / "state",
        "config": path,
        "sources": SourceOptions(roots=(folder,)),
        "retry_backoff": 0.01,
        "wait_interval": 0.01,
        **settings,
    }
    app = Celery("imagemill", set_as_current=False)
    app.conf.update(configuration(Settings(**given)))
    # As in the processes of a pool, nobody subscribes to results: whoever collects garbage would
    # unsubscribe, and that may be a thread of the Redis.
    with setup_default_app(app), denied_join_result():
        app.set_default()  # also for other threads
        app.set_current()
        found = Service(app, app.conf.imagemill, folder)
        app.conf.imagemill_tenants = tenants_of(found.settings)
        try:
            yield found
        finally:
            found.client.close()
            found._channel.connection.client.close()
            journal().redis.close()
