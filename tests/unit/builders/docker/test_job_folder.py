"""The folder of a docker build goes with the build, or with the next look at what the dead left."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

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


class Engine:
    """Has tags, and is away now and then."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.is_there = True

    def untag(self, tags: Sequence[str]) -> bool:
        self.asked.append(tags)
        return self.is_there


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """What a killed worker has left."""
    folder = tmp_path / "docker-dead"
    (folder / "config").mkdir(parents=True)
    jobs.note_tags(folder, ("localhost/x:1", "localhost/x:2"))
    return folder


def test_what_is_in_use_is_left_alone_and_what_the_dead_left_goes(tmp_path: Path) -> None:
    root, engine = str(Path(jobs.__file__).parents[3]), Engine()
    with subprocess.Popen(
        [sys.executable, "-c", _BUILDING, str(tmp_path)],
        env={"PYTHONPATH": root, "PATH": os.defpath},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        jobs.remove_dead(tmp_path, engine.untag)
        assert engine.asked == []
        assert len(list(tmp_path.iterdir())) == 1
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    jobs.remove_dead(tmp_path, engine.untag)
    assert engine.asked == [["localhost/x:1", "localhost/x:2"]]
    assert list(tmp_path.iterdir()) == []
    jobs.remove_dead(tmp_path, engine.untag)
    assert len(engine.asked) == 1


def test_tags_are_known_until_the_engine_has_them_no_more_and_credentials_go_at_once(
    left: Path,
) -> None:
    engine = Engine()
    engine.is_there = False
    jobs.remove_dead(left.parent, engine.untag)
    assert [path.name for path in left.iterdir()] == ["tags"]
    engine.is_there = True
    jobs.remove_dead(left.parent, engine.untag)
    assert not left.exists()
    assert engine.asked[0] == engine.asked[1]


def test_they_are_known_also_where_whoever_removes_them_is_killed_himself(left: Path) -> None:
    def dying(tags: Sequence[str]) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.remove_dead(left.parent, dying)
    engine = Engine()
    jobs.remove_dead(left.parent, engine.untag)
    assert engine.asked == [["localhost/x:1", "localhost/x:2"]]
    assert not left.exists()


def test_those_who_begin_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    def use(number: int) -> None:
        with jobs.job_folder(tmp_path) as folder:
            jobs.note_tags(folder, (f"localhost/held:{number}",))
            jobs.remove_dead(tmp_path, engine.untag)

    engine = Engine()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(400)))
    assert not list(tmp_path.iterdir())
    assert engine.asked == []
