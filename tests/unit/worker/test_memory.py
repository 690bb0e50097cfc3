"""How much memory a worker's children may take: their share of what the pod may."""

from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from worker import memory
from worker.app import create
from worker.settings import Settings

GIB = 1 << 30

pytestmark = pytest.mark.filterwarnings("ignore:You're running the worker with superuser")


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of the cgroups that this process sees; `own` beside it says where it is in them."""
    (tmp_path / "fs").mkdir()
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "own")
    return tmp_path / "fs"


@pytest.fixture(scope="module")
def app() -> Celery:
    return create(Settings(broker="redis://localhost"))


def is_in(cgroups: Path, line: str) -> None:
    (cgroups.parent / "own").write_text(f"{line}\n")


@pytest.mark.parametrize(("limit", "processes", "share"), [(2, 3, 512), (2, 15, 256), (1, 1, 512)])
def test_children_share_the_pods_limit(
    cgroups: Path, app: Celery, limit: int, processes: int, share: int
) -> None:
    is_in(cgroups, "0::/")
    (cgroups / "memory.max").write_text(f"{limit * GIB}\n")
    worker: Any = app.Worker(concurrency=processes)
    assert worker.max_memory_per_child == share * 1024


def test_who_asks_for_another_limit_has_it(cgroups: Path, app: Celery) -> None:
    is_in(cgroups, "0::/")
    (cgroups / "memory.max").write_text(f"{GIB}\n")
    worker: Any = app.Worker(max_memory_per_child=7)
    assert worker.max_memory_per_child == 7


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
