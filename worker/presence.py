"""A worker that takes tasks says so in Redis, for `Client.workers`: Celery's remote control is off by
default. It also looks whether the others sign with its key.
"""

import threading
from logging import getLogger
from typing import Any

from celery import bootsteps

from imagemill.client import open_journal
from imagemill.state.journal import LOST
from imagemill.state.presence import ANNOUNCED_SECONDS, Presence, Worker
from imagemill.state.seal import Seal
from tasks.settings import Setup, seal_of

log = getLogger(__name__)


class Announce(bootsteps.StartStopStep):
    """Part of a worker's consumer: a thread that says that it is there while it takes tasks."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, c: Any, **_: Any) -> None:
        self._ended = threading.Event()

    def start(self, c: Any) -> None:
        self._ended = threading.Event()
        queues = tuple(sorted(c.app.amqp.queues.consume_from))
        args = (c.app, str(c.hostname), queues, self._ended)
        threading.Thread(target=_announce, args=args, name="presence", daemon=True).start()

    def stop(self, c: Any) -> None:
        self._ended.set()


def _announce(app: Any, name: str, queues: tuple[str, ...], ended: threading.Event) -> None:
    setup: Setup = app.conf.imagemill
    # A connection of its own: those of the tasks belong to the processes of the pool.
    redis = open_journal(app, setup.backend, setup.key_prefix).redis
    presence, seal = Presence(redis, setup.key_prefix), seal_of(setup)
    worker, warned = Worker(name, queues, seal.fingerprint), False
    while True:
        try:
            if ended.is_set():
                return presence.forget(name)
            presence.announce(worker)
            warned = warned or _warn(seal, presence.workers())
        except LOST as error:
            log.warning("The worker could not say that it is there: %s", error)
            if ended.is_set():
                return None
        ended.wait(ANNOUNCED_SECONDS)


def _warn(seal: Seal, workers: list[Worker]) -> bool:
    """Log which workers have keys that this one does not know; return whether there are any."""
    others = [worker.name for worker in workers if not seal.knows(worker.key)]
    if others:
        log.error(
            "%s sign with a key that this worker does not have: they refuse each other's builds. Give"
            " all workers the same IMAGEMILL_SIGNING_KEYS",
            ", ".join(others),
        )
    return bool(others)
