"""The embedded service of a command without a broker."""

from typing import Self

from imagemill.embedded import EmbeddedFailed, EmbeddedService, adopt_orphans
from imagemill.errors import ServiceUnreachable


class LocalService(EmbeddedService):
    """An embedded service of this process, which has no other children."""

    remote = False

    def __enter__(self) -> Self:
        adopt_orphans()
        return super().__enter__()

    def explain(self, error: ServiceUnreachable, build: str) -> EmbeddedFailed:
        """Return what it means for a build that the service does not answer any more: it is lost."""
        return self.failure()

    def abandon(self, build: str) -> None:
        """Nothing: the build ends with us."""
