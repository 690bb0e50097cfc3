"""How much memory a child process of a worker may have taken before it makes room for a new one.

Python gives little of what a step has needed back to the system. Celery replaces a child that has
grown when its task has ended; without that, the children of a pod outgrow its limit one after the
other, and the kernel kills one in the middle of a step.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")

LEAST = 256 << 20
"""Bytes that each child is allowed: a fresh one has about 100 MB, and must not go after each step."""


OBJECTS = 50_000
"""New objects after which garbage is looked for."""


def bound(instance: Any, conf: Any, options: dict[str, Any], **_: object) -> None:
    """For Celery's signal `celeryd_init`: share the limit among the children and their parent."""
    limit = cgroup_limit()
    if limit is not None:
        processes = int(options.get("concurrency") or conf.worker_concurrency)
        conf.worker_max_memory_per_child = max(LEAST, limit // (processes + 1)) // 1024


def leave_alone(**_: object) -> None:
    """For Celery's signal `celeryd_init`: have Python look for garbage less often, if it would.

    The files of a source are many small objects, and no garbage: to look through them over and over
    takes a fifth of a graft.
    """
    gc.set_threshold(max(OBJECTS, gc.get_threshold()[0]))


def cgroup_limit() -> int | None:
    """Return how many bytes this process's cgroup may use; None if that is not limited."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = [limit for limit in _limits() if limit < physical]
    return min(found, default=None)


def _limits() -> Iterator[int]:
    """Yield the limits of our cgroup and of those above it, in versions 2 and 1 of cgroups."""
    for line in OWN_CGROUPS.read_text().splitlines() if OWN_CGROUPS.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, name = CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        # A container may see its own cgroup as the root, under the path that its host knows.
        own = mount / path.lstrip("/")
        for folder in (own, *own.parents):
            file = folder / name
            if folder.is_relative_to(mount) and file.exists():
                text = file.read_text().strip()
                if text.isdecimal():
                    yield int(text)
