"""A worker that takes tasks says so in Redis, for `Client.workers`: Celery's remote control is off by
default. It also looks whether the others sign with its key.
"""

import threading
from collections.abc import Callable
from functools import partial
from logging import getLogger
from typing import Any

from imagemill.client import open_journal
from imagemill.state.journal import LOST
from imagemill.state.presence import ANNOUNCED_SECONDS, Presence, Worker
from imagemill.state.seal import Seal
from tasks.settings import Setup, seal_of
from worker.background import Background

log = getLogger(__name__)


class Announce(Background):
    """Part of a worker's consumer: a thread that says that it is there while it takes tasks."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def work(self, parent: Any) -> Callable[[threading.Event], None]:
        queues = tuple(sorted(parent.app.amqp.queues.consume_from))
        return partial(_announce, parent.app, str(parent.hostname), queues)


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
