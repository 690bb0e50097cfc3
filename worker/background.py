"""Parts of a worker that do their work in a thread of their own."""

import threading
from collections.abc import Callable
from typing import Any

from celery import bootsteps


class Background(bootsteps.StartStopStep):
    """Part of a worker: a thread, from its start to its end.

    It begins when the pool's processes are there: one that is forked while another thread holds a
    lock, of an import say, waits for that lock for ever.
    """

    requires: tuple[Any, ...] = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **_: Any) -> None:
        self._ended = threading.Event()

    def work(self, parent: Any) -> Callable[[threading.Event], None]:
        """Return what the thread does until the event is set."""
        raise NotImplementedError

    def start(self, parent: Any) -> None:
        self._ended = threading.Event()  # a part of the consumer starts with each connection
        work, name = self.work(parent), type(self).__name__.lower()
        threading.Thread(target=work, args=(self._ended,), name=name, daemon=True).start()

    def stop(self, parent: Any) -> None:
        self._ended.set()

    def terminate(self, parent: Any) -> None:
        self._ended.set()
