"""How a worker is, by the signs of life of its loop and the ages of its tasks."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.worker import state

from worker.health import SILENT, Health

# In a process of its own: a worker alters Celery for all that its process does afterwards.
ORDER = """
import sys
from pathlib import Path
from worker.app import create
from worker.settings import Settings

settings = Settings(broker="redis://localhost", metrics_port=0, state_dir=Path(sys.argv[1]))
app = create(settings)
for part in app.Worker(pool="prefork", concurrency=1).blueprint.order:
    print(type(part).__name__)
"""


@pytest.fixture
def health() -> Health:
    return Health(limit=100, consuming=True)


@pytest.fixture
def active() -> Iterator[set[Any]]:
    """The requests that the worker runs."""
    requests: Any = state.active_requests
    before = set(requests)
    yield requests
    requests.clear()
    requests.update(before)


class _Request:
    """What is looked at of a request that runs."""

    def __init__(self, time_start: float) -> None:
        self.time_start = time_start


def test_a_worker_that_consumes_is_well(health: Health) -> None:
    assert health.ailment() is None
    assert health.hindrance() is None


def test_a_worker_without_a_broker_is_well_but_not_ready(health: Health) -> None:
    health.consuming = False
    health.beaten -= 2 * SILENT
    assert health.ailment() is None
    assert health.hindrance() == "not connected to the broker"


def test_a_loop_that_gives_no_sign_of_life_is_ill(health: Health) -> None:
    health.beaten -= 2 * SILENT
    assert health.ailment() == "the consumer's loop hangs"
    assert health.hindrance() == health.ailment()
    health.beat()
    assert health.ailment() is None


def test_tasks_past_their_limit_are_told(health: Health, active: set[Any]) -> None:
    request = _Request(time_start=time.time() - 99)
    active.add(request)
    assert health.ailment() is None
    request.time_start -= 100
    assert health.ailment() == "1 tasks are past their time limit"


def test_no_process_of_the_pool_is_forked_while_threads_of_ours_run(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ORDER, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    order = told.stdout.split()
    assert order.index("Pool") < min(order.index("Reap"), order.index("ServeHealth"))
