"""The embedded service of a command without a broker."""

from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Self

from imagemill.embedded import EmbeddedFailed, EmbeddedService, adopt_orphans
from imagemill.errors import ServiceUnreachable
from imagemill.start import with_celery

if TYPE_CHECKING:
    from imagemill.client import Client


class LocalService(EmbeddedService):
    """An embedded service of this process, which has no other children."""

    remote = False

    def __enter__(self) -> Self:
        adopt_orphans()
        return super().__enter__()

    def connect(self) -> "Client":
        """Return a client, as soon as the service takes builds."""
        with_celery()
        return super().connect()

    def look_ahead(self, source: str) -> None:
        """Look at the files of a folder that is to be built, while the worker starts."""
        if Path(source).is_dir():
            Thread(target=self._look, args=(Path(source),), name="look-ahead", daemon=True).start()

    def _look(self, source: Path) -> None:
        from imagemill.context.index import AHEAD, INDEXES, Memory

        Memory(self._cache / INDEXES, source, self._state / AHEAD).look_ahead()

    def explain(self, error: ServiceUnreachable, build: str) -> EmbeddedFailed:
        """Return what it means for a build that the service does not answer any more: it is lost."""
        return self.failure()

    def abandon(self, build: str) -> None:
        """Nothing: the build ends with us."""
