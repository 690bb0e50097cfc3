"""How long a tenant's small builds wait while another one has a thousand in the queue: beside how long
they wait alone.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, rounds, sized
from benchmarks.service import service, subfolder
from imagemill.client import Client

MANY = sized(1000, 20)
FEW = sized(100, 5)
ROUNDS = rounds()

CONFIG = "policy:\n  tenants:\n    team-a: {}\n    team-b: {}\n"


def measure() -> Iterator[tuple[str, Figure]]:
    """`fair_wait_vs_alone`: the median wait of B's builds beside A's thousand ÷ alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = subfolder(folder, "keys")
        for tenant in ("team-a", "team-b"):
            (keys / tenant).write_text(tenant * 8)
        (folder / "config.yaml").write_text(CONFIG)
        settings = {
            "IMAGEMILL_CONFIG": str(folder / "config.yaml"),
            "IMAGEMILL_TENANT_KEYS_DIR": str(keys),
        }
        with service(folder, **settings) as running:
            project = subfolder(folder, "project")
            (project / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
            image = f"{running.registry}/fair"
            first, second = (
                Client(running.broker, tenant=tenant, key=tenant * 8)
                for tenant in ("team-a", "team-b")
            )
            source = str(project)
            first.wait(first.submit(source, image), timeout=120).raise_for_status()
            ratios = [_round(first, second, source, image) for _ in range(ROUNDS)]
    yield "fair_wait_vs_alone", Figure(statistics.median(ratios), min(ratios), max(ratios))


def _round(first: Client, second: Client, source: str, image: str) -> float:
    alone = _median_wait(second, source, image)
    before = [first.submit(source, image) for _ in range(MANY)]
    beside = _median_wait(second, source, image)
    for build in before:
        first.wait(build)
    return beside / alone


def _median_wait(client: Client, source: str, image: str) -> float:
    sent = [(time.time(), client.submit(source, image)) for _ in range(FEW)]
    waits = []
    for begun, build in sent:
        client.wait(build).raise_for_status()
        waits.append(client.status(build).steps[-1].ended or time.time())
        waits[-1] -= begun
    return statistics.median(waits)


if __name__ == "__main__":
    print(*measure(), sep="\n")
