"""How much memory a worker's children may take: their share of what the pod may."""

import gc
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from worker import memory

GIB = 1 << 30

# In a process of its own: a worker alters Celery for all that its process does afterwards.
WORKERS = """
import gc
import sys
from pathlib import Path
from worker import memory
from worker.app import create
from worker.settings import Settings

memory.CGROUPS, memory.OWN_CGROUPS = map(Path, sys.argv[1:])
before = gc.get_threshold()
app = create(Settings(broker="redis://localhost"))
assert gc.get_threshold() == before, 'it is no worker yet'
for options in ({"concurrency": 3}, {"max_memory_per_child": 7}):
    print(app.Worker(**options).max_memory_per_child)
"""


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of the cgroups that this process sees; `own` beside it says where it is in them."""
    (tmp_path / "fs").mkdir()
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "own")
    return tmp_path / "fs"


def is_in(cgroups: Path, line: str) -> None:
    (cgroups.parent / "own").write_text(f"{line}\n")


@pytest.mark.parametrize(("limit", "processes", "share"), [(2, 3, 512), (2, 15, 256), (1, 1, 512)])
def test_children_share_the_pods_limit(
    cgroups: Path, limit: int, processes: int, share: int
) -> None:
    is_in(cgroups, "0::/")
    (cgroups / "memory.max").write_text(f"{limit * GIB}\n")
    conf = SimpleNamespace(worker_concurrency=processes)
    memory.bound(None, conf, {})
    assert conf.worker_max_memory_per_child == share * 1024


def test_a_worker_keeps_to_the_share_and_who_asks_for_another_limit_has_it(cgroups: Path) -> None:
    is_in(cgroups, "0::/")
    (cgroups / "memory.max").write_text(f"{2 * GIB}\n")
    command = [sys.executable, "-c", WORKERS, str(cgroups), str(memory.OWN_CGROUPS)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str(512 * 1024), "7"]


def test_the_narrowest_limit_above_counts(cgroups: Path) -> None:
    is_in(cgroups, "0::/pods/this")
    (cgroups / "pods/this").mkdir(parents=True)
    (cgroups / "pods/this/memory.max").write_text("max\n")
    (cgroups / "pods/memory.max").write_text(f"{GIB}\n")
    assert memory.cgroup_limit() == GIB


def test_a_limit_of_the_first_version_is_read(cgroups: Path) -> None:
    is_in(cgroups, "4:memory:/kubepods/of-the-host")
    (cgroups / "memory").mkdir()
    (cgroups / "memory/memory.limit_in_bytes").write_text(f"{GIB}\n")
    assert memory.cgroup_limit() == GIB


@pytest.mark.parametrize("line", ["0::/", "4:memory:/", "1:cpu:/"])
def test_no_limit_is_none(cgroups: Path, line: str) -> None:
    is_in(cgroups, line)
    (cgroups / "memory.max").write_text("max\n")
    (cgroups / "memory").mkdir()
    (cgroups / "memory/memory.limit_in_bytes").write_text(f"{(1 << 63) - 4096}\n")
    assert memory.cgroup_limit() is None


def test_garbage_is_looked_for_less_often_in_a_worker_and_never_more_often() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)
        memory.leave_alone()
        assert gc.get_threshold()[0] == memory.OBJECTS
        gc.set_threshold(4 * memory.OBJECTS)
        memory.leave_alone()
        assert gc.get_threshold()[0] == 4 * memory.OBJECTS
    finally:
        gc.set_threshold(*before)
