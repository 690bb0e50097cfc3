"""The folder of a docker build goes with the build, or with the next look at what the dead left."""

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from imagemill.builders.docker import job_folder as jobs

_BUILDING = """
import sys
from pathlib import Path
from imagemill.builders.docker.job_folder import job_folder, note_tags
with job_folder(Path(sys.argv[1])) as folder:
    note_tags(folder, ("localhost/x:1", "localhost/x:2"))
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_it_is_private_and_goes_with_the_block(tmp_path: Path) -> None:
    with jobs.job_folder(tmp_path) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_use_is_left_alone_and_what_the_dead_left_goes(tmp_path: Path) -> None:
    root = str(Path(jobs.__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", _BUILDING, str(tmp_path)],
        env={"PYTHONPATH": root, "PATH": os.defpath},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        assert jobs.remove_dead(tmp_path) == ()
        assert len(list(tmp_path.iterdir())) == 1
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert jobs.remove_dead(tmp_path) == ("localhost/x:1", "localhost/x:2")
    assert list(tmp_path.iterdir()) == []
    assert jobs.remove_dead(tmp_path) == ()


def test_those_who_begin_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    def use(number: int) -> None:
        with jobs.job_folder(tmp_path) as folder:
            jobs.note_tags(folder, (f"localhost/held:{number}",))
            assert jobs.remove_dead(tmp_path) == ()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(400)))
    assert not list(tmp_path.iterdir())
