"""A program ends with us, however we end."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from builds import processes as running
from builds import until
from imagemill import processes

_OURS = """
import sys
from imagemill import processes
command = ["/bin/sh", "-c", sys.argv[1]]
processes.run(command, {"PATH": "/usr/bin:/bin"}, lambda pid: None, lambda chunk: None, grace=0.2)
"""


def start(script: str) -> "subprocess.Popen[bytes]":
    """A process of ours that runs a shell script."""
    root = str(Path(processes.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", _OURS, script], env={"PYTHONPATH": root, "PATH": os.defpath}
    )


@pytest.mark.parametrize(
    "script",
    [
        "sleep {mark}",
        "sleep {mark} & wait",
        "trap '' TERM; sleep {mark} & while :; do wait; done",
    ],
    ids=["itself", "a child of it", "what does not want to end"],
)
def test_what_a_killed_process_has_started_ends(script: str) -> None:
    mark = f"100.{uuid.uuid4().int % 10**12}"
    ours = start(script.format(mark=mark))
    try:
        assert until(lambda: any(line.startswith("sleep") for line in running(mark)))
        ours.send_signal(signal.SIGKILL)
        ours.wait()
        assert until(lambda: not running(mark))
    finally:
        ours.kill()
        ours.wait()


def test_what_ends_by_itself_is_left_in_peace() -> None:
    said: list[bytes] = []
    code = processes.run(
        ["/bin/sh", "-c", "echo done; exit 3"],
        {"PATH": os.defpath},
        lambda _: None,
        said.append,
        grace=1,
    )
    assert (code, b"".join(said)) == (3, b"done\n")


def test_a_program_that_shows_more_at_a_terminal_has_one() -> None:
    said: list[bytes] = []
    script = "test -t 1 && test -t 2 && stty size <&1; exit 3"
    code = processes.run(
        ["/bin/sh", "-c", script],
        {"PATH": os.defpath},
        lambda _: None,
        said.append,
        terminal=True,
    )
    assert (code, b"".join(said).split()) == (3, [b"50", b"120"])


def test_nothing_watches_any_more_when_the_program_has_ended() -> None:
    before = set(psutil.Process().children())  # servers of other tests, some of them shells
    processes.run(["/bin/true"], {}, lambda _: None, lambda _: None)
    assert set(psutil.Process().children()) <= before
