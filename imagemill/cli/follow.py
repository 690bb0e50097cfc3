"""Waits for a build while showing it. The first Ctrl-C cancels the build, the second stops at
once.

What shows a build is imported once it is submitted: the workers begin meanwhile.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagemill.cli import interrupts
from imagemill.cli.options import FAILED, INTERRUPTED, UNREACHABLE, USAGE
from imagemill.cli.services import Service
from imagemill.errors import ConfigError, ImagemillError, ServiceUnreachable
from imagemill.messages import BuildReport, BuildRequest, Failure, State
from imagemill.names import LIGHT

if TYPE_CHECKING:
    from imagemill.cli.progress import View
    from imagemill.client import Client

CANCEL_SECONDS = 15.0
"""How long a cancelled build is waited for."""

IDLE_SECONDS = 5.0
"""How long a build may wait in the queue before it is asked whether there is a worker at all."""


@dataclass(frozen=True)
class Shown:
    """How a build is shown, and where its outcome goes."""

    as_json: bool = False
    verbose: bool = False
    progress: str = "auto"
    iidfile: Path | None = None
    """Where the image's digest goes."""
    metadata_file: Path | None = None
    """Where digest, names and report go."""


def attend(service: Service, request: BuildRequest, shown: Shown) -> int:
    """Submit a build, follow it, show its report; returns the exit code."""
    as_json, build = shown.as_json, ""
    remote = service.remote
    try:
        client = service.connect()
        build = client.submit(request)
        with interrupts.held():
            view = _view(shown)
        with view, cancelling(client, build, view) as interrupted:
            if remote:
                view.identify(build)
            report = follow(client, build, view, embedded=not remote)
    except ServiceUnreachable as error:
        return _lost(service.explain(error, build), build, as_json=as_json)
    except KeyboardInterrupt:
        service.abandon(build)
        raise
    _show(report, service, shown, log_shown=view.log_shown)
    return exit_code(report, interrupted=interrupted.is_set())


def _view(shown: Shown) -> "View":
    from imagemill.cli.progress import view_for

    return view_for(as_json=shown.as_json, verbose=shown.verbose, progress=shown.progress)


def _show(report: BuildReport, service: Service, shown: Shown, *, log_shown: bool) -> None:
    from imagemill.cli import render, terminal

    if _is_unexpected(report):
        terminal.show_log(service.worker_log())
    render.report(
        report,
        as_json=shown.as_json,
        log_shown=log_shown,
        kept=service.remote,
        alone=shown.progress == "quiet" or not sys.stdout.isatty(),
        quiet=shown.progress == "quiet",
    )
    if report.error is None:
        render.write_files(report, iidfile=shown.iidfile, metadata_file=shown.metadata_file)


def _lost(failure: ServiceUnreachable, build: str, *, as_json: bool) -> int:
    """Report that a build has failed with its embedded service; elsewhere it may go on."""
    from imagemill.cli import render
    from imagemill.embedded import EmbeddedFailed

    if not (build and isinstance(failure, EmbeddedFailed)):
        raise failure from None

    error = Failure.of(failure, log=failure.log)
    render.report(BuildReport(id=build, status="failed", error=error), as_json=as_json)
    return UNREACHABLE


def exit_code(report: BuildReport, *, interrupted: bool = False) -> int:
    """Return the exit code that tells how a build ended."""
    if report.error is None:
        return 0
    if report.status == "cancelled" and interrupted:
        return INTERRUPTED
    return USAGE if report.error.kind == ConfigError.__name__ else FAILED


def _is_unexpected(report: BuildReport) -> bool:
    """Whether a step failed with an error that nobody foresaw, and of which only its worker's log
    tells.
    """
    return report.error is not None and report.error.kind == ImagemillError.__name__


def follow(client: "Client", build: str, view: "View", *, embedded: bool = False) -> BuildReport:
    """Return the report, once the build has ended. Without workers that may be never, which the
    view is told; an `embedded` service has one, which may be starting.
    """
    report = None
    client.on_outage = view.note
    idle = _idle(client, view.note)
    if not embedded:
        idle.start()
    try:
        for event in client.events(build):
            if event.state not in (None, State.QUEUED):
                idle.cancel()
            view.show(event)
            report = event.report
    finally:
        idle.cancel()
    assert report is not None  # the last event is the report
    return report


@contextmanager
def waiting(client: "Client", note: Callable[[str], None]) -> Iterator[None]:
    """While the block waits for a worker, tell if there is none."""
    idle = _idle(client, note)
    idle.start()
    try:
        yield
    finally:
        idle.cancel()


def _idle(client: "Client", note: Callable[[str], None]) -> threading.Timer:
    timer = threading.Timer(IDLE_SECONDS, _tell_if_nobody_works, (client, note))
    timer.daemon = True
    return timer


def _tell_if_nobody_works(client: "Client", note: Callable[[str], None]) -> None:
    try:
        workers = client.workers()
    except ImagemillError:
        return  # whoever follows the build finds out too
    if not any(LIGHT in queues for queues in workers.values()):
        note(f"no worker answers that serves the queue {LIGHT}; see `imagemill doctor`")


@contextmanager
def cancelling(client: "Client", build: str, view: "View") -> Iterator[threading.Event]:
    """While the block runs, Ctrl-C cancels the build; once more, or if that takes too long:
    `KeyboardInterrupt`.

    The event says whether there was a first Ctrl-C.
    """
    ended = threading.Event()

    def cancel() -> None:
        view.note("cancelling the build; Ctrl-C again stops at once")
        try:
            client.cancel(build)
        except ImagemillError as error:
            view.note(f"the build could not be cancelled: {error}")
        if not ended.wait(CANCEL_SECONDS):
            os.kill(os.getpid(), signal.SIGINT)

    with interrupts.calling(cancel) as interrupted:
        try:
            yield interrupted
        finally:
            ended.set()
