"""What a worker tells those who watch it, over HTTP: `/healthz`, `/readyz` and `/metrics`.

The answers cost nothing but a look at a clock: a part of the worker's consumer leaves the time with
every turn of its loop, so a loop that hangs, or a pool whose tasks do not end in their time, shows.
"""

import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

from celery import Celery, bootsteps
from celery.signals import worker_init
from celery.worker import state
from kombu.exceptions import OperationalError

from imagemill.errors import OperatorError
from worker import metrics
from worker.settings import Settings

BEAT = 5.0
"""Seconds between two signs of life of the consumer's loop."""

SILENT = 60.0
"""Seconds without a sign of life after which the loop is taken to hang."""


@dataclass
class Health:
    """How a worker is. `limit` is how many seconds a task may take before it is ended."""

    limit: float
    beaten: float = field(default_factory=time.monotonic)
    consuming: bool = False

    def beat(self) -> None:
        """Note that the consumer's loop turns."""
        self.beaten = time.monotonic()

    def ailment(self) -> str | None:
        """Return what is wrong with the worker, so that it should be started anew; None if
        nothing is.
        """
        if self.consuming and time.monotonic() - self.beaten > SILENT:
            return "the consumer's loop hangs"
        now = time.time()
        overdue = [
            request
            for request in list(state.active_requests)
            if request.time_start and now - request.time_start > self.limit + SILENT
        ]
        return f"{len(overdue)} tasks are past their time limit" if overdue else None

    def hindrance(self) -> str | None:
        """Return why the worker takes no tasks now; None if it does."""
        return self.ailment() or (None if self.consuming else "not connected to the broker")


class Pulse(bootsteps.StartStopStep):
    """Part of a worker's consumer: keeps its `Health`, which lies at `app.health`."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, c: Any) -> None:
        health: Health = c.app.health
        health.beat()
        health.consuming = True
        self._timer = c.timer.call_repeatedly(BEAT, health.beat)

    def stop(self, c: Any) -> None:
        c.app.health.consuming = False
        timer = getattr(self, "_timer", None)
        if timer is not None:
            timer.cancel()


class ServeHealth(bootsteps.StartStopStep):
    """Part of a worker: answers over HTTP, in threads, and so, as the reaper, when the pool's
    processes are there.
    """

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        serve(worker.app, worker.app.health, worker.app.conf.imagemill.metrics_port)


def install(app: Celery, settings: Settings) -> None:
    """Have the worker that this process becomes keep its health, count, and answer at its port."""
    health = Health(limit=app.conf.task_time_limit)
    app.steps["consumer"].add(Pulse)
    app.steps["worker"].add(ServeHealth)
    setattr(app, "health", health)  # noqa: B010 (where `Pulse` finds it)

    def begin(sender: Any, **_: object) -> None:
        # Before the pool's processes are started, which inherit what is counted in.
        metrics.Metrics(settings.state_dir / "metrics" / quote(str(sender), safe="@"))

    worker_init.connect(begin, weak=False)


def serve(app: Celery, health: Health, port: int) -> ThreadingHTTPServer:
    """Answer at the port, in threads, for as long as the process lives; `OperatorError` if it is
    taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers = {"/healthz": health.ailment, "/readyz": health.hindrance}
            if self.path in answers:
                wrong = answers[self.path]()
                self._say(HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK, wrong or "ok")
            elif self.path == "/metrics":
                self._say(HTTPStatus.OK, metrics.exposition(queue_lengths(app)).decode())
            else:
                self._say(HTTPStatus.NOT_FOUND, "see /healthz, /readyz and /metrics")

        def _say(self, status: HTTPStatus, text: str) -> None:
            body = f"{text}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: probes come every few seconds."""

    try:
        server = ThreadingHTTPServer(("", port), Handler)
    except OSError as error:
        raise OperatorError(
            f"The worker cannot answer at port {port}: {error.strerror}",
            "give each worker of a machine another IMAGEMILL_METRICS_PORT",
        ) from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


def queue_lengths(app: Celery) -> dict[str, int]:
    """Return how many messages lie in each queue that this worker serves; nothing of any while the
    broker is away.
    """
    try:
        with app.connection_for_read() as connection:
            names: Any = app.amqp.queues.consume_from
            return {name: _length(connection, name) for name in names}
    except OperationalError:
        return {}


def _length(connection: Any, queue: str) -> int:
    try:
        declared = connection.default_channel.queue_declare(queue=queue, passive=True)
    except connection.channel_errors:  # on Redis, a queue without messages is not there
        return 0
    return int(declared.message_count)
