"""A cold build and push of a 100 MB context: what we add to `docker build` and `docker push` by hand.

Both sides get a tree of the same shape and size, but never the same bytes, so that neither the engine's cache nor
the registry has any of it. They take turns, and the figure is the ratio of their medians.
"""

import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import servers
from imagemill import context
from imagemill.builders import Workplace
from imagemill.builders.docker import DockerBuilder
from imagemill.builders.labels import labels
from imagemill.ports import BuildInputs, Quiet
from imagemill.reference import ImageReference
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import OciRegistry

ROUNDS = 5
MODULES, MODULE_BYTES = 300, 20_000
WEIGHTS, WEIGHTS_BYTES = 4, 23_500_000

Deliver = Callable[[Path, str], object]
"""Builds the image of a folder and pushes it under a reference."""


def measure() -> dict[str, float]:
    """`docker_vs_cli`: a ratio of times."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = Path(folder)
        host = stack.enter_context(servers.docker_engine(subfolder(place, "engine")))
        registry = stack.enter_context(servers.docker_registry(subfolder(place, "registry")))
        ours, by_hand = through_adapters(place, host), command_line(host)
        rounds = [(cold(ours, place, registry), cold(by_hand, place, registry)) for _ in range(ROUNDS)]
        return {
            "docker_vs_cli": statistics.median(one for one, _ in rounds) / statistics.median(two for _, two in rounds)
        }


def cold(deliver: Deliver, place: Path, registry: str) -> float:
    """Seconds for a context that nobody has seen before; what is still to be written to disk is written first.

    The project stays until the end: ext4 is slow to create files for some seconds after many were deleted.
    """
    project = Path(tempfile.mkdtemp(prefix="project-", dir=place))
    generate(project, project.name)
    os.sync()
    begun = time.perf_counter()
    deliver(project, f"{registry}/bench/{project.name.lower()}x:1")
    return time.perf_counter() - begun


def generate(project: Path, seed: str) -> None:
    """A model to serve: 6 MB of source files that compress well, and 94 MB of weights that do not."""
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


def through_adapters(place: Path, host: str) -> Deliver:
    """What the steps of the chain do, one after the other: hash, ask the registry, pack, build and push, ask again."""
    builder = DockerBuilder(
        Workplace(subfolder(place, "scratch"), DockerConfig(place / "none"), Path(servers.docker_cli()), host)
    )
    registry = OciRegistry(DockerConfig(place / "none"))

    def deliver(project: Path, reference: str) -> None:
        image = ImageReference.parse(reference)
        source_hash = context.source_hash(
            context.manifest(project, None, Quiet()),
            target=None,
            build_args={},
            platform=None,
            labels={},
            secrets=(),
        )
        assert registry.digest(image) is None
        packed = place / f"{source_hash}.tar.gz"
        with packed.open("xb") as stream:
            context.pack(project, None, stream, Quiet())
        with packed.open("rb") as stream:
            inputs = BuildInputs(image, labels=labels(source_hash, None, None, {}))
            digest = builder.build(inputs, stream, registry, Quiet())
        assert registry.digest(image) == digest
        packed.unlink()

    return deliver


def subfolder(folder: Path, name: str) -> Path:
    """A folder in a folder, made if it is not there."""
    path = folder / name
    path.mkdir(exist_ok=True)
    return path


if __name__ == "__main__":
    print(measure())
