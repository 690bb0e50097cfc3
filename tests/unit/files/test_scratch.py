"""Folders of what is needed for a moment, and of processes that were killed meanwhile."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from imagemill.files.scratch import scratch

HOLDER = """
import sys, pathlib
from imagemill.files.scratch import scratch
with scratch(pathlib.Path(sys.argv[1])) as folder:
    folder.mkdir()
    (folder / "file").touch()
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_nothing_is_left(tmp_path: Path) -> None:
    with scratch(tmp_path) as folder:
        assert not folder.exists()
        folder.mkdir()
        (folder / "file").touch()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_has_left_is_removed_by_the_next(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    (left,) = tmp_path.iterdir()
    os.utime(left, (0, 0))
    with scratch(tmp_path):
        assert (left / "files/file").exists(), "it is in use"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with scratch(tmp_path):
        assert not left.exists()


def test_what_was_made_a_moment_ago_stays(tmp_path: Path) -> None:
    """Its process may not have locked it yet."""
    young = tmp_path / "scratch-young"
    young.mkdir()
    with scratch(tmp_path):
        assert young.exists()
