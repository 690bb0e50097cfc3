"""What every worker of the light pool does besides: it sends what was to be sent later, and again
what was lost, and serves the queue of steps.

A step that is due, but that nobody has, may have lost its message: on its way, with the worker that
had taken it, or with the broker. One that somebody has whose lease has ended has lost its worker.
The record says both, so its message is sent again, by one of the workers: no beat is needed.
See docs/adr/0018-the-record-is-the-truth.md.
"""

import threading
import time
from collections.abc import Callable
from functools import cached_property
from logging import getLogger
from typing import Any

from celery import bootsteps
from kombu.exceptions import OperationalError

from imagemill.client import open_journal
from imagemill.names import DEAD, LIGHT, STEPS
from imagemill.state.journal import LOST
from imagemill.state.later import Later
from imagemill.state.records import Records
from tasks import pipeline
from tasks.message import TaskMessage
from tasks.settings import Setup, seal_of
from worker import tenants
from worker.background import Background
from worker.queues import declaration
from worker.tenants import tenants_of

log = getLogger(__name__)

ROUNDS = 6
"""How often overdue steps are looked for within the redelivery time."""

LATER_SECONDS = 0.2
"""How often messages are looked for that were to be sent later."""

SHORTEST_ROUND = 0.2
LONGEST_ROUND = 5.0


class ServeSteps(bootsteps.Step):
    """Part of a worker: who serves the entry serves the queue of steps, too, whatever it was told;
    and each queue is served with those that tenants have beside it.
    """

    requires = ()

    def __init__(self, worker: Any, **_: Any) -> None:
        app = worker.app
        queues, served = app.amqp.queues, set(app.amqp.queues.consume_from)
        app.conf.imagemill_tenants = tenants_of(app.conf.imagemill)
        if LIGHT in served:
            queues.select_add(queues[STEPS])
            if DEAD in queues:  # declared on RabbitMQ alone
                queues.select_add(queues[DEAD])
            for name in tenants.entries(app.conf.imagemill_tenants):
                queues.select_add(queues[name])
        for name, beside in tenants.steps(app.conf.imagemill_tenants):
            if DEAD in queues:
                queues.add(declaration(name))
            if beside in served:
                queues.select_add(queues[name])


class Reap(Background):
    """Part of a worker that serves the entry: a thread that looks for overdue steps."""

    requires = (ServeSteps, "celery.worker.components:Pool")

    def __init__(self, parent: Any, **_: Any) -> None:
        super().__init__(parent)
        self.enabled = LIGHT in parent.app.amqp.queues.consume_from

    def work(self, parent: Any) -> Callable[[threading.Event], None]:
        return Reaper(parent.app).run


class Reaper:
    """Sends messages that were to be sent later, and again those of overdue steps."""

    def __init__(self, app: Any) -> None:
        setup: Setup = app.conf.imagemill
        self._app = app
        # A connection of its own: those of the tasks belong to the processes of the pool.
        self._setup, self._journal = setup, open_journal(app, setup.backend, setup.key_prefix)
        self._grace = setup.redelivery_seconds
        self._round = max(SHORTEST_ROUND, min(LONGEST_ROUND, self._grace / ROUNDS))
        self._looked = time.monotonic()
        self._later = Later(self._journal.redis, setup.key_prefix)
        broker = app.connection_for_write()
        self._broker_errors = (OperationalError, *broker.connection_errors, *broker.channel_errors)

    def run(self, ended: threading.Event) -> None:
        """Look for both until `ended` is set."""
        while not ended.wait(LATER_SECONDS):
            try:
                self.send_later()
                if time.monotonic() - self._looked >= self._round and self._may_judge():
                    self.send_overdue()
            except (*LOST, *self._broker_errors) as error:
                log.warning("Due steps could not be looked for: %s", error)

    def send_later(self) -> None:
        """Send the messages whose time has come, and those of builds that are to stop."""
        while taken := self._later.take():
            for message, text in taken:
                self._send_kept(message, text)
                self._later.sent(message)

    def _send_kept(self, message: str, text: str) -> None:
        try:
            kept = TaskMessage.load(text)
        except (ValueError, TypeError, RecursionError):
            log.error("The message %a cannot be read: it is dropped", message)
            return
        kept.send()

    def send_overdue(self) -> None:
        """Send the messages of steps that were lost."""
        waiting: dict[str, bool] = {}
        for due in self._records.overdue():
            if not due.lost and due.queue not in waiting:
                waiting[due.queue] = self._waiting(due.queue) > 0
            if due.lost or not waiting[due.queue]:
                log.warning("Step %s of build %s is overdue: sent again", due.step, due.build)
                pipeline.send(due)

    @cached_property
    def _records(self) -> Records:
        return Records(self._journal, self._grace, seal_of(self._setup))

    def _may_judge(self) -> bool:
        """Whether living workers have had the time to renew their leases since Redis, or this
        process, was away.
        """
        looked, self._looked = self._looked, time.monotonic()
        info: Any = self._journal.redis.info("server")
        return (
            self._looked - looked < 2 * self._round + 1
            and info["uptime_in_seconds"] > self._grace / 2
        )

    def _waiting(self, queue: str) -> int:
        """Return how many messages wait in the queue; none if nobody has declared it yet."""
        with self._app.connection_for_write() as connection:
            try:
                declared = connection.default_channel.queue_declare(queue=queue, passive=True)
            except connection.channel_errors:
                return 0
            return int(declared.message_count)
