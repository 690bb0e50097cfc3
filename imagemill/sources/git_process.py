"""Runs a program so that it can be stopped at any time, with all that it has started."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from imagemill.errors import OperatorError, UserError

TICK = 0.2
"""Seconds after which somebody is asked whether to go on, while the program is silent."""

MOST_PROCESSES = 100
"""Processes that a program may have under it: far more than git needs, but servers can make a git that fetches what is
missing by itself start another one that does so, and so on."""

_COUNT_SECONDS = 2.0
"""How often they are counted."""


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    stdin: IO[bytes],
    check: Callable[[], None],
    out: Callable[[bytes], None],
    err: Callable[[bytes], None],
) -> int:
    """Run a command in `folder` and return its exit code; `out` and `err` get what it writes, as it comes.

    `check` is called at least every `TICK` seconds. If one of them raises, the command and all that it started, which
    is in one process group, is killed at once: there is nothing that would have to end in good order. So it is if it
    starts more than `MOST_PROCESSES`.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        raise OperatorError(f"{command[0]} cannot be run: {error.strerror}", "see its installation") from None
    with process:
        try:
            _hand_on(process, check, out, err)
            return _end_of(process, check)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


def _hand_on(
    process: "subprocess.Popen[bytes]",
    check: Callable[[], None],
    out: Callable[[bytes], None],
    err: Callable[[bytes], None],
) -> None:
    """Read what the process writes until it has closed both of its outputs."""
    assert process.stdout is not None
    assert process.stderr is not None
    counted = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, out)
        selector.register(process.stderr, selectors.EVENT_READ, err)
        while selector.get_map():
            check()
            if time.monotonic() - counted > _COUNT_SECONDS:
                _count(process.pid)
                counted = time.monotonic()
            for key, _ in selector.select(TICK):
                if chunk := os.read(key.fd, 65536):
                    key.data(chunk)
                else:
                    selector.unregister(key.fd)


def _count(process: int) -> None:
    """Raise if a process has started too many others."""
    with suppress(psutil.NoSuchProcess):
        if len(psutil.Process(process).children(recursive=True)) > MOST_PROCESSES:
            raise UserError(
                f"The repository's server made git start more than {MOST_PROCESSES} processes",
                "use another server; the operator should have a newer git",
            )


def _end_of(process: "subprocess.Popen[bytes]", check: Callable[[], None]) -> int:
    while True:
        check()
        try:
            return process.wait(TICK)
        except subprocess.TimeoutExpired:
            continue
