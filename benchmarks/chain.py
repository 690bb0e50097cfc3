"""What the chain takes on top of Celery where the image exists: the path that most requests go."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from celery import chain
from celery.result import AsyncResult

from benchmarks.figures import Figure, Turn, ratio, sized, turn
from benchmarks.service import service, subfolder
from imagemill.client import Client

BUILDS = sized(100, 5)
STEPS = 5
"""Tasks of a build whose image exists: build_image, load_config, hash_source, check_registry,
report.
"""

ROUNDS = sized(30, 1)
POLL = 0.005
SINGLE = sized(50, 2)


def measure() -> Iterator[tuple[str, Figure | float]]:
    """`chain_vs_bare` (a ratio of rates) and `cached_ms` (a median, in milliseconds)."""
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as running:
        client, request = running.client, small_project(Path(folder), running.registry)
        client.wait(client.submit(**request), timeout=120).raise_for_status()
        rounds = [
            # A ratio of rates: the bare one's time stands first.
            (_all(lambda: _bare(client)), _all(lambda: _submit(client, request)))
            for _ in range(ROUNDS + 1)
        ]
        # The first round warms up the worker's processes.
        yield "chain_vs_bare", ratio(rounds[1:])
        yield "cached_ms", statistics.median(_single(client, request) for _ in range(SINGLE))


def small_project(folder: Path, registry: str) -> dict[str, Any]:
    project = subfolder(folder, "project")
    (project / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (project / "train.py").write_text("print('hello')\n")
    return {"source": str(project), "destination": f"{registry}/bench"}


def _all(start: Callable[[], AsyncResult[Any]]) -> Turn:
    """What it takes until BUILDS chains have ended that are started at once."""

    def action() -> None:
        for result in [start() for _ in range(BUILDS)]:
            # Asked for, not listened to: what Celery publishes is lost at times, and then costs
            # seconds.
            while not result.ready():
                time.sleep(POLL)

    return turn(action)


def _submit(client: Client, request: dict[str, Any]) -> AsyncResult[Any]:
    return AsyncResult(client.submit(**request), app=client.app)


def _bare(client: Client) -> AsyncResult[Any]:
    signature = client.app.signature("benchmarks.empty", queue="imagemill")
    return chain(
        signature.clone(args=(1,)), *(signature.clone() for _ in range(STEPS - 1))
    ).apply_async()


def _single(client: Client, request: dict[str, Any]) -> float:
    begun = time.perf_counter()
    client.wait(client.submit(**request), timeout=60).raise_for_status()
    return (time.perf_counter() - begun) * 1000


if __name__ == "__main__":
    print(*measure(), sep="\n")
