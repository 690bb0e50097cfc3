"""The service that a build runs on: one behind a broker, or an embedded one for as long as the
command lasts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from imagemill.cli.options import Connection, Misuse
from imagemill.errors import ServiceUnreachable
from imagemill.start import with_celery

if TYPE_CHECKING:
    from imagemill.cli.local_service import LocalService
    from imagemill.client import Client


class RemoteService:
    """A service behind a broker."""

    remote = True

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def connect(self) -> "Client":
        """Return a client of the service."""
        return client_of(self._connection)

    def look_ahead(self, source: str) -> None:
        """Nothing: the source is the workers' to look at."""

    def explain(self, error: ServiceUnreachable, build: str) -> ServiceUnreachable:
        """Return what it means for a build that the service does not answer any more: nobody can
        say.
        """
        hint = (
            f"{error.hint}; the build may go on: `imagemill wait {build}`" if build else error.hint
        )
        return ServiceUnreachable(error.message, hint)

    def abandon(self, build: str) -> None:
        """Say what becomes of a build that is not waited for any longer."""
        from imagemill.cli import terminal

        if build:
            terminal.error(
                "Nobody waits for the build any more, but it may go on",
                f"`imagemill status {build}` tells",
            )

    def worker_log(self) -> tuple[str, ...]:
        """Return what the workers wrote: that is theirs."""
        return ()


Service: TypeAlias = "RemoteService | LocalService"


def require_broker(connection: Connection) -> str:
    """Return the broker's URL; without one, a usage error."""
    if not connection.broker:
        raise Misuse(
            "No broker is given, and builds without one end with their command",
            "give --broker, or set IMAGEMILL_BROKER",
        )
    return connection.broker


def client_of(connection: Connection, **options: Any) -> "Client":
    """Return a client of the service behind the broker, with these options of its own besides;
    without a broker, a usage error.
    """
    broker = require_broker(connection)
    with_celery()
    from imagemill.client import Client

    return Client(broker, connection.backend, key_prefix=connection.key_prefix, **options)


def service_for(
    connection: Connection,
    cache: Path,
    environment: Mapping[str, str],
    secrets: Mapping[str, Path | bytes],
) -> Service:
    """Return the service behind the broker, if there is one; else an embedded one with these
    variables and build secrets.
    """
    if connection.broker:
        return RemoteService(connection)
    from imagemill.cli.local_service import LocalService

    return LocalService(cache, environment, secrets)
