"""The client for programs of asyncio: the same methods, to be awaited.

    async with AsyncClient() as client:
        build = await client.submit("/src/project", "registry.example.com/team/model")
        report = await client.wait(build)

Each call is one of `Client`'s, in a thread, and takes that thread for a moment only: builds that are
waited for, however many, hold none. Whoever stops awaiting is free at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

from imagemill.client import Client

if TYPE_CHECKING:
    from imagemill.messages import BuildReport
    from imagemill.state.journal import Event

P = ParamSpec("P")
T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
"""Seconds between two looks at a build: short where something happens, longer where nothing does."""

_STATUS_SECONDS = 5.0
"""How often who follows a silent build asks whether it has ended without a report."""


def _awaited(
    method: Callable[Concatenate[Client, P], T],
) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    """Return a method of the client as one to be awaited, with the same parameters."""

    async def call(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(method, self.client, *args, **kwargs)

    call.__name__, call.__doc__ = method.__name__, method.__doc__
    return call


class AsyncClient:
    """A connection to an Imagemill service; the parameters are `Client`'s, or a `client` itself.

    What is for the command line and for operators (uploads, dead letters) is `Client`'s alone.
    """

    def __init__(
        self,
        broker: str | None = None,
        backend: str | None = None,
        *,
        key_prefix: str | None = None,
        client: Client | None = None,
    ) -> None:
        self.client = client or Client(broker, backend, key_prefix=key_prefix)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    close = _awaited(Client.close)
    submit = _awaited(Client.submit)
    status = _awaited(Client.status)
    builds = _awaited(Client.builds)
    cancel = _awaited(Client.cancel)
    source_hash = _awaited(Client.source_hash)
    inputs = _awaited(Client.inputs)
    workers = _awaited(Client.workers)

    async def wait(self, build: str, timeout: float | None = None) -> BuildReport:
        """Return the report once the build has ended, however it ended; `TimeoutError` after
        `timeout` seconds.
        """
        async for event in self.events(build, timeout=timeout):
            if event.report is not None:
                return event.report
        raise TimeoutError(f"The build {build} has not ended after {timeout} s")

    async def logs(self, build: str, *, follow: bool = False) -> AsyncIterator[str]:
        """Yield the lines of the build's log so far; with `follow` also those to come."""
        async for event in self.events(build, follow=follow):
            if event.line is not None:
                yield event.line

    async def events(
        self, build: str, *, follow: bool = True, timeout: float | None = None
    ) -> AsyncIterator[Event]:
        """Yield states, log lines and, last, the report, as `Client.events` does."""
        end = time.monotonic() + timeout if timeout is not None else None
        position, pause, quiet_since = "0", _FIRST_PAUSE, time.monotonic()
        while True:
            for event in await self._next(build, position):
                yield event
                if event.report is not None:
                    return
                position, pause, quiet_since = event.position, _FIRST_PAUSE, time.monotonic()
            if not follow or (end is not None and time.monotonic() >= end):
                return
            if time.monotonic() - quiet_since > _STATUS_SECONDS:
                quiet_since = time.monotonic()
                report = (await self.status(build)).report
                if report is not None:
                    from imagemill.state.journal import Event

                    yield Event(position, time.time(), report=report)
                    return
            await asyncio.sleep(pause if end is None else min(pause, end - time.monotonic()))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _next(self, build: str, position: str) -> list[Event]:
        """Return what there is of a build's events after a position."""
        return await asyncio.to_thread(
            lambda: list(self.client.events(build, follow=False, after=position))
        )
