"""Folders of what is needed for a moment, and of processes that were killed meanwhile."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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
    with scratch(tmp_path):
        assert (left / "files/file").exists(), "it is in use"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with scratch(tmp_path):
        assert not left.exists()


def test_those_who_begin_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    def use(_: int) -> None:
        with scratch(tmp_path) as folder:
            folder.mkdir()
            (folder / "file").write_text("mine")
            assert (folder / "file").read_text() == "mine"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(400)))
    assert not list(tmp_path.iterdir())
