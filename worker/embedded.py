"""The worker of the command line's own service: `python -m worker.embedded VALKEY RUN STATE`.

`imagemill.embedded` starts it with the program of Valkey and two folders, writes variables for its
environment to its standard input as a line of JSON, and holds that pipe open for as long as it
lives. When the pipe ends, builds that still run are cancelled, and the worker, its Valkey and both
folders go away. Celery is imported late, so that Valkey starts meanwhile.
"""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

from imagemill import start
from imagemill.embedded import (
    END_SECONDS,
    SOCKET,
    adopt_orphans,
    await_socket,
    kill_descendants,
    remove,
)

_POLL_SECONDS = 0.02


class Premises:
    """The folders of the service, and the one way out of it."""

    def __init__(self, run: Path, state: Path) -> None:
        self.run, self.state = run, state
        self._leaving = threading.Lock()

    def leave(self, *, clear: bool) -> NoReturn:
        """End this process and all that it started.

        `clear` says to remove the folders too: not while the command line lives, which wants to
        read the log.
        """
        self._leaving.acquire()  # for good: one thread leaves, any other waits here for its end
        kill_descendants()
        if clear:
            remove(self.run)
            remove(self.state)
        os._exit(0 if clear else 1)


class Builds:
    """The builds that this worker has begun, and the tasks that it runs."""

    def __init__(self) -> None:
        self._begun: set[str] = set()
        self._running: set[str] = set()

    def begin(self, task_id: str, task: object, **_: object) -> None:
        """For Celery's signal `task_prerun`; a build's id is the id of its root task."""
        self._running.add(task_id)
        self._begun.add(task.request.root_id)  # type: ignore[attr-defined]

    def end(self, task_id: str, **_: object) -> None:
        """For Celery's signal `task_postrun`."""
        self._running.discard(task_id)

    def cancel(self) -> None:
        """Cancel the builds that have not ended, and wait until all have, for at most
        `END_SECONDS`.
        """
        from imagemill.state.journal import LOST

        deadline = time.monotonic() + END_SECONDS
        with suppress(*LOST):
            while (self._cancel_open() or self._running) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)

    def _cancel_open(self) -> bool:
        """Ask the builds without a report to stop; whether there are any."""
        if not self._begun:
            return False
        from tasks.settings import journal

        still_open = [build for build in list(self._begun) if journal().report(build) is None]
        for build in still_open:
            journal().ask_to_cancel(build)
        return bool(still_open)


def main() -> None:
    """Serve until the command line ends."""
    valkey, run, state = map(Path, sys.argv[1:])
    premises = Premises(run, state)
    adopt_orphans()
    lifeline = _take_lifeline()
    variables = lifeline.readline()
    if not variables:
        premises.leave(clear=True)
    os.environ.update(json.loads(variables))
    start.quickly()
    builds = Builds()
    _in_background(_leave_with_valkey, _start_valkey(valkey, premises.run), premises)
    _in_background(_leave_with_command_line, lifeline, builds, premises)
    with suppress(SystemExit):  # its settings are wrong, as it has said
        _work(builds, premises)
    premises.leave(clear=False)


def _take_lifeline() -> BinaryIO:
    """Our standard input, kept from what we start, which gets an empty one."""
    lifeline = os.fdopen(os.dup(0), "rb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return lifeline


def _start_valkey(program: Path, folder: Path) -> "subprocess.Popen[bytes]":
    """Return a Valkey on a socket that only we may use, without a port, with everything in memory."""
    command = [str(program), "--port", "0", "--unixsocket", SOCKET, "--unixsocketperm", "700"]
    command += ["--dir", str(folder), "--save", "", "--appendonly", "no", "--loglevel", "warning"]
    command += [
        "--set-proc-title",
        "no",
    ]  # it would overwrite the environment, by which what is ours is known
    return subprocess.Popen(command)


def _leave_with_valkey(valkey: "subprocess.Popen[bytes]", premises: Premises) -> None:
    status = valkey.wait()
    print(f"The embedded Valkey has ended, with status {status}", file=sys.stderr, flush=True)
    premises.leave(clear=False)


def _leave_with_command_line(lifeline: BinaryIO, builds: Builds, premises: Premises) -> None:
    lifeline.read()
    builds.cancel()
    premises.leave(clear=True)


def _work(builds: Builds, premises: Premises) -> None:
    """Run the Celery worker; returns if somebody else has ended it with a signal."""
    start.with_celery()
    from celery.signals import task_postrun, task_prerun

    from imagemill.names import POOLS
    from worker.app import app

    task_prerun.connect(builds.begin, weak=False)
    task_postrun.connect(builds.end, weak=False)
    if not await_socket(premises.run / SOCKET, lambda: True):
        return
    pool = POOLS["all"]
    app.Worker(
        hostname="embedded",
        pool=pool.celery_pool,
        concurrency=pool.concurrency,
        queues=list(pool.queues),
        task_events=False,
        quiet=True,
        # There are no other workers to know of.
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    ).start()


def _in_background(function: object, *arguments: object) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
