"""What a worker counts, by what the chain tells it."""

import subprocess
import sys
from pathlib import Path

import pytest

from imagemill.messages import Build, BuildReport, BuildRequest
from worker.metrics import why

# In a process of its own: who listens to signals does so for all that its process does afterwards.
COUNT = """
import gc, sys
from pathlib import Path
from types import SimpleNamespace
from celery.signals import before_task_publish, task_prerun
from imagemill.messages import Build, BuildReport, BuildRequest
from tasks import signals
from worker.metrics import SENT, Metrics, exposition

Metrics(Path(sys.argv[1]))
gc.collect()
build = Build(id="b", request=BuildRequest(source="/src"), started=0)
report = BuildReport(id="b", status="succeeded", built=True, builder="kaniko", seconds=2)
signals.build_began.send(sender=None, build=build)
signals.build_ended.send(sender=None, build=build, report=report)
signals.step_ended.send(sender=None, step="verify", seconds=0.02)
signals.step_retried.send(sender=None, step="build")
signals.step_redelivered.send(sender=None, step="build")
signals.message_refused.send(sender=None)
signals.cache_asked.send(sender=None, cache="hash", hit=True)
signals.cache_asked.send(sender=None, cache="image", hit=False)
signals.context_stored.send(sender=None, size=7)
headers = {}
before_task_publish.send(sender="x", headers=headers)
for eta in (None, "tomorrow"):  # what was to wait has not waited in its queue
    delivered = {"headers": headers, "delivery_info": {"routing_key": "q"}, "eta": eta}
    task_prerun.send(sender=None, task=SimpleNamespace(request=SimpleNamespace(**delivered)))
print(exposition({"imagemill": 3}).decode())
"""


def test_what_the_chain_tells_is_counted(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "counter_1.db").write_text("of a worker before")
    done = subprocess.run(
        [sys.executable, "-c", COUNT, tmp_path / "metrics"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    for counted in (
        "imagemill_builds_begun_total 1.0",
        'imagemill_builds_total{builder="kaniko",status="succeeded",why="built"} 1.0',
        'imagemill_build_seconds_sum{status="succeeded"} 2.0',
        'imagemill_step_seconds_bucket{le="0.01",step="verify"} 0.0',
        'imagemill_step_seconds_bucket{le="0.03",step="verify"} 1.0',
        'imagemill_step_retries_total{step="build"} 1.0',
        'imagemill_step_redeliveries_total{step="build"} 1.0',
        "imagemill_dead_letters_total 1.0",
        'imagemill_cache_requests_total{cache="hash",result="hit"} 1.0',
        'imagemill_cache_requests_total{cache="image",result="miss"} 1.0',
        "imagemill_context_bytes_total 7.0",
        'imagemill_queue_wait_seconds_count{queue="q"} 1.0',
        'imagemill_queue_length{queue="imagemill"} 3.0',
    ):
        assert counted in lines


@pytest.mark.parametrize(
    ("status", "built", "grafted", "waited", "word"),
    [
        ("succeeded", True, False, False, "built"),
        ("succeeded", True, True, False, "grafted"),
        ("succeeded", False, False, True, "waited"),
        ("succeeded", False, False, False, "existed"),
        ("failed", True, False, False, "none"),
    ],
)
def test_how_a_build_came_by_its_image(
    status: str, built: bool, grafted: bool, waited: bool, word: str
) -> None:
    build = Build(id="b", request=BuildRequest(source="/src"), started=0, waited=waited)
    report = BuildReport.model_validate(
        {"id": "b", "status": status, "built": built, "grafted": grafted}
    )
    assert why(build, report) == word
