"""Lets workers stand still at named points of steps; loaded into them by `celery -I chaos.points`.

The product's code is as it is: Celery's signals say where a task is. Whoever wants a step to stand
still makes a file STEP.POINT.armed in the folder CHAOS_POINTS; the first process that comes there
takes it, writes STEP.POINT.reached, and waits until `go` is there.

The points: `before` the task; `mid`, when the step has been claimed and is about to work; `after`,
when what it learned is written and the next message about to be sent; `published`, when it was sent,
and the step's own message is not acknowledged yet.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from celery import current_task
from celery.signals import (
    after_task_publish,
    before_task_publish,
    task_postrun,
    task_prerun,
    worker_init,
)

from imagemill.names import step_name, task_name

POLL = 0.02
"""Seconds between two looks for `go`."""

_LAST = task_name("report")
"""After this step nothing is sent: it is `published` when Celery has stored its result."""


def _stand(task: str | None, point: str) -> None:
    folder, here = Path(os.environ["CHAOS_POINTS"]), f"{step_name(task or '')}.{point}"
    try:
        (folder / f"{here}.armed").rename(folder / f"{here}.taken")
    except FileNotFoundError:  # nobody wants it, or another process was here first
        return
    ours = {"child": os.getpid(), "build": current_task.request.root_id}
    (folder / f"{here}.new").write_text(json.dumps(ours))
    (folder / f"{here}.new").rename(folder / f"{here}.reached")
    while not (folder / "go").exists():
        time.sleep(POLL)


def _name() -> str | None:
    return current_task.name if current_task else None


@task_prerun.connect(weak=False)
def _before(task: Any, **_: Any) -> None:
    _stand(task.name, "before")


@before_task_publish.connect(weak=False)
def _after(**_: Any) -> None:
    _stand(_name(), "after")


@worker_init.connect(weak=False)
def _watch_states(**_: Any) -> None:
    """Stand still where a step has been claimed and its first state noted: in the middle of it."""
    from tasks.run import Run

    begin = Run.begin

    def begun(run: Run) -> None:
        begin(run)
        _stand(_name(), "mid")

    setattr(Run, "begin", begun)  # noqa: B010 (a method is not to be assigned)


@after_task_publish.connect(weak=False)
def _published(**_: Any) -> None:
    _stand(_name(), "published")


@task_postrun.connect(weak=False)
def _ended(task: Any, **_: Any) -> None:
    if task.name == _LAST:
        _stand(task.name, "published")
