"""Runs a program so that it can be stopped at any time, with all that it has started."""

import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

TICK = 0.2
"""Seconds after which somebody is asked whether to go on, while the program is silent."""

Read = Callable[[bytes], None]
"""Gets what a program writes, as it comes."""


class CannotRunError(Exception):
    """A command could not even be begun; the text says which, and why."""


def others_environment() -> dict[str, str]:
    """Return this process's environment for a program that is not ours: without our own variables,
    among which are the broker's password and tokens.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("IMAGEMILL_")}


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    check: Callable[[int], None],
    out: Read,
    err: Read | None = None,
    *,
    folder: Path | None = None,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    grace: float = 0.0,
) -> int:
    """Run a command and return its exit code; without `err`, standard error is among what `out`
    gets.

    `check` is called with the process's id at least every `TICK` seconds. If it or a reader raises,
    the command and all that it started, which is in one process group, is ended: by SIGTERM if that
    is given `grace`, in seconds, and killed at the end of it.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if err else subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        raise CannotRunError(f"{command[0]} cannot be run: {error.strerror}") from None
    with process:
        try:
            _hand_on(process, check, out, err)
            return _end_of(process, check)
        except BaseException:
            _stop(process, grace)
            raise


def _hand_on(
    process: "subprocess.Popen[bytes]", check: Callable[[int], None], out: Read, err: Read | None
) -> None:
    """Read what the process writes until it has closed its outputs."""
    with selectors.DefaultSelector() as selector:
        for stream, read in ((process.stdout, out), (process.stderr, err)):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, read)
        while selector.get_map():
            check(process.pid)
            for key, _ in selector.select(TICK):
                if chunk := os.read(key.fd, 65536):
                    key.data(chunk)
                else:
                    selector.unregister(key.fd)


def _end_of(process: "subprocess.Popen[bytes]", check: Callable[[int], None]) -> int:
    """The exit code, once the process has ended; it has closed its outputs already."""
    while True:
        check(process.pid)
        try:
            return process.wait(TICK)
        except subprocess.TimeoutExpired:
            continue


def _stop(process: "subprocess.Popen[bytes]", grace: float) -> None:
    if grace and process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        for stream in filter(None, (process.stdout, process.stderr)):
            stream.close()  # nobody reads any more, and it must not wait for that
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
