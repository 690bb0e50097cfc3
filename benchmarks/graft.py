"""A change of code, through the chain and without a builder, against `docker build` and `docker
push` of it; and whether the size of the base image matters.

Each side edits for itself before its turn: what one has just built is in the engine's cache for the
other. Requests and bytes are counted by a proxy before the registry, which takes no part in the
times.
"""

import json
import random
import re
import statistics
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

import servers
from benchmarks.docker import command_line
from benchmarks.figures import Figure, Turn, ratio, rounds, sized, turn
from benchmarks.proxy import Counts, counting
from benchmarks.service import Service, service, subfolder
from imagemill.client import Client
from imagemill.messages import BuildReport

FILES, FILE_BYTES = sized(2_000, 20), 12_000
SMALL_BYTES, BIG_BYTES = 1 << 20, sized(3 << 30, 2 << 20)
WEIGHTS_BYTES = sized(2 << 30, 17 << 20)
PATIENCE = 600

_BLOCK = 1 << 20


def measure() -> Iterator[tuple[str, Figure | float]]:
    """`graft_vs_cli` and `graft_big_vs_small`, ratios of times; what one such build asks of the
    registry, and what it sends and takes beside large files.
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
        ours, ours_big, theirs = zip(
            *(
                (
                    timed(small, lambda: grafted(running.client, small, running.registry)),
                    timed(big, lambda: grafted(running.client, big, running.registry)),
                    timed(by_hand, hand),
                )
                for _ in range(rounds())
            ),
            strict=True,
        )
        yield "graft_vs_cli", ratio(list(zip(ours, theirs, strict=True)))
        yield "graft_big_vs_small", ratio(list(zip(ours_big, ours, strict=True)))
        yield "graft_ms", 1000 * statistics.median(turn.seconds for turn in ours)
        yield from counted(running, small).items()
        yield from beside_weights(running, place).items()


def project(place: Path, running: Service, base_bytes: int) -> Path:
    """A project of many files, on a base image of some size that is in the registry."""
    base = subfolder(place, f"base{uuid.uuid4().hex}")
    of = random.Random(base.name)
    (base / "busybox").write_bytes(servers.busybox().read_bytes())
    (base / "busybox").chmod(0o755)
    write_large(base / "big", base_bytes, of)
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


def timed(folder: Path, work: Callable[[], object]) -> Turn:
    """What a build takes after one file has changed."""
    edit(folder)
    return turn(work)


def write_large(path: Path, size: int, of: random.Random) -> None:
    """Write a file that does not compress."""
    with path.open("wb") as file:
        for _ in range(size // _BLOCK):
            file.write(of.randbytes(_BLOCK))


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


def until_at_rest(counts: Counts) -> None:
    """Wait until what was built by a builder meanwhile is read, too."""
    before = -1
    while counts.sent != before:
        before = counts.sent
        time.sleep(2)


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


def beside_weights(running: Service, place: Path) -> dict[str, float]:
    """`weights_bytes`: sent for a change of code, besides the layer of code; `weights_rss_mb`: the
    most memory that a process of the worker has had by then.
    """
    with counting(running.registry) as (address, counts):
        folder = subfolder(place, f"weights{uuid.uuid4().hex}")
        write_large(folder / "weights.bin", WEIGHTS_BYTES, random.Random(folder.name))
        (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /app/\n")
        subfolder(folder, "package0")
        until_grafted(running.client, folder, address)
        until_at_rest(counts)
        edit(folder)
        counts.clear()
        report = built(running.client, folder, address)
        if not report.grafted or report.image is None:
            raise RuntimeError(report.not_grafted)
        code = smallest_layer(report.image)
    return {"weights_bytes": counts.sent - code, "weights_rss_mb": peak_mb()}


def smallest_layer(image: str) -> int:
    """Bytes of the smallest layer of an image."""
    host, path = image.partition("@")[0].split("/", 1)
    request = urllib.request.Request(
        f"http://{host}/v2/{path}/manifests/{image.partition('@')[2]}",
        headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
    )
    with urllib.request.urlopen(request) as answer:
        return min(int(layer["size"]) for layer in json.load(answer)["layers"])


def peak_mb() -> float:
    """The most memory that any of the worker's processes has had, in MiB."""
    peaks = []
    for process in psutil.Process().children(recursive=True):
        if "celery" in " ".join(process.cmdline()):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peaks.append(int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024)
    return max(peaks)


if __name__ == "__main__":
    print(dict(measure()))
