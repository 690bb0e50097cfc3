"""What every worker clears away besides: what builds have left on its node, and in its cluster,
whose worker was killed.

A build that goes on has its Job back, and one that fails has it removed; but not by a worker that
has no access to the cluster, and not where the one that should was killed in turn. So what is found
there is asked for in the records, time and again.
"""

import threading
from collections.abc import Callable
from functools import cached_property
from logging import getLogger
from typing import Any, NamedTuple

from imagemill.client import open_journal
from imagemill.errors import ImagemillError, OperatorError
from imagemill.files import scratch
from imagemill.names import BUILDERS, build_queue
from imagemill.ports import Builder
from imagemill.state.journal import LOST
from imagemill.state.lock import ImageLock
from imagemill.state.records import Records
from tasks import workspace
from tasks.settings import Setup, seal_of
from worker.background import Background

log = getLogger(__name__)


class Tidy(Background):
    """Part of a worker: a thread that clears away, once in the redelivery time."""

    def work(self, parent: Any) -> Callable[[threading.Event], None]:
        return Tidier(parent.app).run


class _Section(NamedTuple):
    """A config's builder section, as far as it is needed to tidy."""

    type: str


class Tidier:
    """Clears away what was left by the builders whose queues this worker serves."""

    def __init__(self, app: Any) -> None:
        self._setup: Setup = app.conf.imagemill
        self._journal = open_journal(app, self._setup.backend, self._setup.key_prefix)
        served = app.amqp.queues.consume_from
        self._types = [name for name in BUILDERS if build_queue(name) in served]

    def run(self, ended: threading.Event) -> None:
        """Clear away until `ended` is set."""
        while not ended.wait(self._setup.redelivery_seconds):
            try:
                self.tidy()
            except (ImagemillError, OSError, *LOST) as error:
                log.warning("What dead workers have left could not be removed: %s", error)

    def tidy(self) -> None:
        """Remove what is left now."""
        scratch.remove_dead(workspace.scratch_folder(self._setup))
        for builder in self._builders:
            builder.tidy(self._over)

    @cached_property
    def _builders(self) -> list[Builder]:
        """Those whose packages are here; whoever builds with another one is told."""
        found = []
        for name in self._types:
            try:
                found.append(workspace.builder(self._setup, _Section(name)))
            except OperatorError as error:
                log.info("Nothing of the builder %s is cleared away here: %s", name, error)
        return found

    @cached_property
    def _records(self) -> Records:
        """The records, once Redis is there."""
        seal = seal_of(self._setup)
        return Records(self._journal, self._setup.redelivery_seconds, seal)

    def _over(self, build: str, image: str) -> bool:
        """Whether the build has ended, and no other one has taken over what it began. What is not
        known may be another installation's.
        """
        redis, prefix = self._journal.redis, self._setup.key_prefix
        holder = ImageLock(redis, prefix, image, build, self._setup.lock_lease).holder()
        return self._records.ended(build) and (not holder or self._records.ended(holder))
