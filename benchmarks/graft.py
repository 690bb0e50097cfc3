"""A change of code, through the chain and without a builder, against `docker build` and `docker
push` of it; and whether the size of the base image matters.

Each side edits for itself before its turn: what one has just built is in the engine's cache for the
other. Requests and bytes are counted by a proxy before the registry, which takes no part in the
times.
"""

import random
import re
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import servers
from benchmarks.docker import command_line
from benchmarks.proxy import counting
from benchmarks.service import Service, service, subfolder
from imagemill.client import Client
from imagemill.messages import BuildReport

ROUNDS = 5
FILES, FILE_BYTES = 2_000, 12_000
SMALL_BYTES, BIG_BYTES = 1 << 20, 256 << 20
PATIENCE = 200


def measure() -> dict[str, float]:
    """`graft_vs_cli` and `graft_big_vs_small`, ratios of times; `graft_requests`; and
    `graft_base_bytes`.
    """
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as running:
        place = Path(folder)
        small, by_hand = project(place, running, SMALL_BYTES), project(place, running, SMALL_BYTES)
        big = project(place, running, BIG_BYTES)
        deliver = command_line(running.engine)

        def hand() -> None:
            deliver(by_hand, f"{running.registry}/bench/by-hand:{uuid.uuid4().hex}")

        hand()
        for one in (small, big):
            until_grafted(running.client, one, running.registry)
        rounds = [
            (
                timed(small, lambda: grafted(running.client, small, running.registry)),
                timed(big, lambda: grafted(running.client, big, running.registry)),
                timed(by_hand, hand),
            )
            for _ in range(ROUNDS)
        ]
        ours, ours_big, theirs = (statistics.median(times) for times in zip(*rounds, strict=True))
        return {
            "graft_vs_cli": ours / theirs,
            "graft_big_vs_small": ours_big / ours,
            "graft_ms": 1000 * ours,
            **counted(running, small),
        }


def project(place: Path, running: Service, base_bytes: int) -> Path:
    """A project of many files, on a base image of some size that is in the registry."""
    base = subfolder(place, f"base{uuid.uuid4().hex}")
    of = random.Random(base.name)
    (base / "busybox").write_bytes(servers.busybox().read_bytes())
    (base / "busybox").chmod(0o755)
    block = of.randbytes(1 << 20)
    with (base / "big").open("wb") as big:
        for _ in range(base_bytes >> 20):
            big.write(block)
    (base / "Dockerfile").write_text("FROM scratch\nCOPY busybox /bin/\nCOPY big /\n")
    name = f"{running.registry}/bench/{base.name}:1"
    command_line(running.engine)(base, name)
    (base / "big").unlink()
    folder = subfolder(place, f"project{uuid.uuid4().hex}")
    (folder / "Dockerfile").write_text(
        f'FROM {name}\nRUN ["/bin/busybox", "mkdir", "/app"]\nWORKDIR /app\nCOPY . .\n'
    )
    for number in range(FILES):
        path = subfolder(folder, f"package{number % 40}") / f"module{number}.py"
        path.write_text(of.randbytes(FILE_BYTES // 2).hex())
    return folder


def edit(folder: Path) -> None:
    (folder / "package0/module0.py").write_text(uuid.uuid4().hex * 300)


def timed(folder: Path, work: Callable[[], object]) -> float:
    """Seconds for a build after one file has changed."""
    edit(folder)
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def built(client: Client, folder: Path, registry: str) -> BuildReport:
    submitted = client.submit(source=str(folder), destination=f"{registry}/bench/{folder.name}")
    return client.wait(submitted, timeout=600).raise_for_status()


def grafted(client: Client, folder: Path, registry: str) -> None:
    report = built(client, folder, registry)
    if not report.grafted:
        raise RuntimeError(report.not_grafted)


def until_grafted(client: Client, folder: Path, registry: str) -> None:
    """Build until what the first image has in its layers is known."""
    for _ in range(PATIENCE):
        edit(folder)
        if built(client, folder, registry).grafted:
            return
        time.sleep(1)
    raise RuntimeError("no image was made without a builder")


def counted(running: Service, folder: Path) -> dict[str, float]:
    """Requests of one build, and bytes of layers that it has read."""
    with counting(running.registry) as (address, counts):
        until_grafted(running.client, folder, address)
        edit(folder)
        counts.clear()
        grafted(running.client, folder, address)
        read = [path for method, path in counts.requests if method == "GET" and "/blobs/" in path]
        configs = [path for path in read if re.search(r"/blobs/sha256:", path)]
        return {
            "graft_requests": len(counts.requests),
            "graft_base_bytes": 0 if len(configs) <= 1 else counts.received,
        }


if __name__ == "__main__":
    print(measure())
