"""A cold build and push of a 100 MB context: what we add to `docker build` and `docker push` by
hand.

Both sides get a tree of the same shape and size, but never the same bytes, so that neither the
engine's cache nor the registry has any of it. They take turns, and the figure is the ratio of their
medians.

A virtual machine may get each page of its memory from its host only when it is first written, and
give it back soon after it was freed: then a write takes ten times as long as on a node whose memory
is in use. So memory is touched before each of them.
"""

import mmap
import os
import random
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import servers
from benchmarks.figures import Figure, Turn, ratio, sized, turn
from benchmarks.service import service, subfolder
from imagemill.client import Client

ROUNDS = sized(9, 1)
MODULES, MODULE_BYTES = sized(300, 10), 20_000
WEIGHTS, WEIGHTS_BYTES = 4, sized(23_500_000, 50_000)

TOUCHED_BYTES = sized(1 << 30, 1 << 20)
"""More than either side writes: the context, its layer, and what the registry stores."""

Deliver = Callable[[Path, str], object]
"""Builds the image of a folder and pushes it under a reference."""


def measure() -> dict[str, Figure]:
    """`docker_vs_cli`: a ratio of times."""
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as running:
        place, registry = Path(folder), running.registry
        ours, by_hand = through_the_chain(running.client), command_line(running.engine)
        cold(ours, place, registry)  # the worker's first build, which imports what it needs
        rounds = [
            (cold(ours, place, registry), cold(by_hand, place, registry)) for _ in range(ROUNDS)
        ]
        return {"docker_vs_cli": ratio(rounds)}


def cold(deliver: Deliver, place: Path, registry: str) -> Turn:
    """What it takes for a context that nobody has seen before; what is still to be written to disk is
    written first.

    The project stays until the end: ext4 is slow to create files for some seconds after many were
    deleted.
    """
    project = subfolder(place, f"project{uuid.uuid4().hex}")
    generate(project, project.name)
    os.sync()
    touch_memory()
    return turn(lambda: deliver(project, f"{registry}/bench/{project.name}:1"))


def touch_memory() -> None:
    """Have the machine own as much memory as is about to be written."""
    with mmap.mmap(-1, TOUCHED_BYTES) as memory:
        for page in range(0, TOUCHED_BYTES, mmap.PAGESIZE):
            memory[page] = 1


def generate(project: Path, seed: str) -> None:
    """A model to serve: 6 MB of source files that compress well, and 94 MB of weights that do
    not.
    """
    source = random.Random(seed)
    (project / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    for number in range(MODULES):
        module = subfolder(project, f"package{number % 30}") / f"module{number}.py"
        module.write_text(source.randbytes(MODULE_BYTES // 2).hex())
    for number in range(WEIGHTS):
        (project / f"model-{number}.safetensors").write_bytes(source.randbytes(WEIGHTS_BYTES))


def command_line(host: str) -> Deliver:
    """`docker build` and `docker push`, as one types them."""
    cli = servers.docker_cli()
    environment = {**os.environ, "DOCKER_HOST": host, "DOCKER_BUILDKIT": "1"}

    def deliver(project: Path, reference: str) -> None:
        for arguments in (["build", "--tag", reference, str(project)], ["push", reference]):
            subprocess.run([cli, *arguments], env=environment, check=True, capture_output=True)

    return deliver


def through_the_chain(client: Client) -> Deliver:
    """A build by the builder, from `submit` to the report."""

    def deliver(project: Path, reference: str) -> None:
        destination = reference.rpartition(":")[0]
        client.wait(
            client.submit(source=str(project), destination=destination, graft=False), timeout=300
        ).raise_for_status()

    return deliver


if __name__ == "__main__":
    print(measure())
