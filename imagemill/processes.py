"""Runs a program so that it can be stopped at any time, with all that it has started, and so that
it ends with us, however we end.
"""

import errno
import fcntl
import os
import selectors
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, NamedTuple

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for where the environment has no PATH."""

TICK = 0.2
"""Seconds after which somebody is asked whether to go on, while the program is silent."""

_WINDOW = 50, 120
"""Lines and columns of a terminal that nobody sees."""

_WATCH = """\
read -r _ && exit
kill -s TERM -- "-$1"
sleep "$2"
kill -s KILL -- "-$1"
"""
"""A shell that ends a process group when the pipe to it is closed and nothing was said before: its
other end is ours, and the kernel closes it when we die. Linux's PR_SET_PDEATHSIG would reach the
program alone and not what it has started, and comes also when only a thread ends.
"""

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
    terminal: bool = False,
) -> int:
    """Run a command and return its exit code; without `err`, standard error is among what `out`
    gets, and where `terminal` says so, both are a terminal if one can be had.

    `check` is called with the process's id at least every `TICK` seconds. If it or a reader raises,
    the command and all that it started, which is in one process group, is ended: by SIGTERM if that
    is given `grace`, in seconds, and killed at the end of it. If this process is killed, that
    happens as well.
    """
    shown = _terminal() if terminal else None
    try:
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=shown.inner if shown else subprocess.PIPE,
            stderr=subprocess.PIPE if err else subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        raise CannotRunError(f"{command[0]} cannot be run: {error.strerror}") from None
    finally:
        if shown:
            os.close(shown.inner)
    with process, shown.outer if shown else nullcontext(process.stdout) as output:
        try:
            with _ending_with_us(process.pid, grace):
                _hand_on(process, check, ((output, out), (process.stderr, err)))
                return _end_of(process, check)
        except BaseException:
            _stop(process, grace, output)
            raise


class _Terminal(NamedTuple):
    outer: IO[bytes]
    """What is written to the terminal is read here."""
    inner: int


def _terminal() -> _Terminal | None:
    """Return a new terminal, wide enough for a line; None if none can be had."""
    try:
        outer, inner = os.openpty()
    except OSError:
        return None
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", *_WINDOW, 0, 0))
    return _Terminal(os.fdopen(outer, "rb", buffering=0), inner)


@contextmanager
def _ending_with_us(group: int, grace: float) -> Iterator[None]:
    """While the block runs, have the process group ended if we are killed."""
    with subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, "sh", str(group), str(grace)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.defpath},
        start_new_session=True,
    ) as watcher:
        try:
            yield
        finally:
            watcher.communicate(b"\n")


def _hand_on(
    process: "subprocess.Popen[bytes]",
    check: Callable[[int], None],
    outputs: Iterable[tuple[IO[bytes] | None, Read | None]],
) -> None:
    """Read what the process writes until it has closed its outputs."""
    with selectors.DefaultSelector() as selector:
        for stream, read in outputs:
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, read)
        while selector.get_map():
            check(process.pid)
            for key, _ in selector.select(TICK):
                if chunk := _read(key.fd):
                    key.data(chunk)
                else:
                    selector.unregister(key.fd)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError as error:
        if error.errno != errno.EIO:  # how Linux tells that nobody has the terminal any more
            raise
        return b""


def _end_of(process: "subprocess.Popen[bytes]", check: Callable[[int], None]) -> int:
    """Return the exit code, once the process has ended; it has closed its outputs already."""
    while True:
        check(process.pid)
        try:
            return process.wait(TICK)
        except subprocess.TimeoutExpired:
            continue


def _stop(process: "subprocess.Popen[bytes]", grace: float, output: IO[bytes] | None) -> None:
    if grace and process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        for stream in filter(None, (output, process.stderr)):
            stream.close()  # nobody reads any more, and it must not wait for that
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
