"""How many processes a worker starts: by the CPUs that it may use, and not by those of its machine."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from celery import Celery
from celery.utils import sysinfo

from worker.celeryconfig import configuration
from worker.settings import Settings

SETTINGS = Settings(broker="redis://localhost")


@pytest.mark.parametrize(("quota", "expected"), [("200000", 4), ("50000", 2), ("max", 192)])
def test_a_pod_with_few_cpus_of_many_starts_few_processes(
    quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kubelet writes for a limit of 2 CPUs on a node of 96."""
    (tmp_path / "self").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
    monkeypatch.setattr(sysinfo, "CGROUP_ROOT", str(tmp_path))
    monkeypatch.setattr(sysinfo, "PROC_SELF_CGROUP", str(tmp_path / "self"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)))
    assert configuration(SETTINGS)["worker_concurrency"] == expected


def test_a_process_that_is_bound_to_one_cpu_counts_one() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from worker.celeryconfig import configuration; from worker.settings import Settings;"
        "print(configuration(Settings(broker='redis://localhost'))['worker_concurrency'])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert told.stdout.split() == [b"2"]


def nothing() -> None:
    """A task's body."""


def test_each_step_has_a_hard_limit_of_its_own() -> None:
    limits = Celery("limits", set_as_current=False)
    limits.conf.update(configuration(SETTINGS.model_copy(update={"hash_timeout": 40.0})))
    for name, seconds in (("hash_source", 45), ("check_registry", 125), ("build", 1805)):
        step = getattr(import_module(f"tasks.{name}"), name)
        task = limits.task(name=name, timeout=step.timeout)(nothing)
        assert task.time_limit == seconds
