"""What clients, tasks and workers have to agree on: names of tasks and queues, the worker pools that
serve them, and for how long things are kept in Redis.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

APPLICATION = "imagemill"
"""The Celery application, and what the names of its tasks and queues begin with."""

LIGHT = APPLICATION
"""Queue of what others ask for: the entry of a build, and questions."""

STEPS = f"{APPLICATION}.steps"
"""Queue of the light steps of builds that have begun, all but `build`. Workers of `LIGHT` serve it,
too, and first: so builders are not idle while many builds wait to begin.
"""

BEGIN = f"{APPLICATION}.begin"
"""Queue of the first steps of tenants' builds; each tenant has one."""

DEAD = f"{APPLICATION}.dead"
"""Queue of what RabbitMQ takes for dead; workers of `LIGHT` put it with the dead letters."""

BUILDERS = ("docker", "kaniko", "noop")
"""The types of builders; each has a queue of its own."""


def build_queue(builder: str) -> str:
    """Return the queue of the builds with a type of builder."""
    return f"{APPLICATION}.{builder}"


def tenant_queue(queue: str, tenant: str | None) -> str:
    """Return a tenant's own queue beside one for all: workers take from them in turns."""
    return f"{queue}.tenant.{tenant}"


def task_name(step: str) -> str:
    """Return the name of the task of a step of the chain, or of another function of `tasks`."""
    return f"{APPLICATION}.{step}"


def step_name(task: str) -> str:
    """Return the step that a task with this name is."""
    return task.removeprefix(f"{APPLICATION}.")


BUILD_IMAGE = task_name("build_image")
"""The task that other services call."""

PLAN_UPLOAD = task_name("plan_upload")
SWEEP = task_name("sweep")

BUILD_KEEP_SECONDS = 24 * 3600
"""How long the result and the journal of a build, and the record of its inputs, are kept."""

HASH_KEEP_SECONDS = 30 * 24 * 3600
"""How long the source hash of a source that cannot change is known after it was last asked for."""

BUILD_TIMEOUT = 1800.0
"""Seconds that a build may take on a worker where nothing else is set."""


class Pool(NamedTuple):
    """A worker for some of the queues: Celery's own words for how many tasks it runs, and in
    what.
    """

    queues: tuple[str, ...]
    celery_pool: Literal["prefork", "threads"] = "prefork"
    concurrency: int | None = None
    """How many tasks at once; None: what worker/celeryconfig.py says."""


POOLS: Mapping[str, Pool] = MappingProxyType(
    {
        "light": Pool((LIGHT, build_queue("noop"))),
        "docker": Pool((build_queue("docker"),), concurrency=2),
        # It only watches what runs in the cluster.
        "kaniko": Pool((build_queue("kaniko"),), "threads", 200),
        # One build needs one thread at a time; others are for steps that end while the next begins.
        "all": Pool((LIGHT, *map(build_queue, BUILDERS)), "threads", 4),
    }
)
"""The pools that `imagemill worker` starts. Each queue is served by one of the first three."""
