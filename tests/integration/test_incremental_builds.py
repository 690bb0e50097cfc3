"""A build after a change, on a real engine: the image is that of a cold build, and what has not
changed is not sent.
"""

import random
import re
import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings

from builds import PushedImage, Watched
from imagemill import context
from imagemill.builders import Workplace
from imagemill.builders.docker.builder import DockerCommandBuilder
from imagemill.context import Manifest
from imagemill.context.handover import Copied
from imagemill.context.mirrors import FolderClaim, MirroredTree, Mirrors
from imagemill.ports import BuildInputs, Quiet
from imagemill.reference import ImageReference
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import OciRegistry
from unit.context import changes

_SENT = re.compile(r"transferring context: ([0-9.]+)([kMG]?B)")
_BYTES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def accept(_: Manifest) -> None: ...


class Bench:
    """Builds a source again and again, as builds of a service do."""

    def __init__(self, folder: Path, engine: str, docker_cli: str, registry: str) -> None:
        self.source, self.registry = folder / "source", registry
        self.mirrors = Mirrors(folder / "contexts")
        (folder / "scratch").mkdir()
        config = DockerConfig(folder / "docker")
        self.builder = DockerCommandBuilder(
            Workplace(folder / "scratch", config, Path(docker_cli), engine)
        )
        self.oci = OciRegistry(config, frozenset({registry}))
        self.log: list[str] = []

    def build(self) -> PushedImage:
        """The image of the source as it is now."""
        name = self.mirrors.claim(
            FolderClaim("s", "b"), MirroredTree(self.source, None), accept, Quiet()
        )
        image = ImageReference.parse(f"{self.registry}/incremental/{uuid.uuid4().hex}:1")
        watched = Watched()
        stored = Copied(self.mirrors.source(name))
        digest = self.builder.build(BuildInputs(image), stored, self.oci, watched)
        self.mirrors.release(name)
        self.log = watched.lines
        return PushedImage(image.with_digest(digest))

    def sent(self) -> float:
        """Bytes of the context that BuildKit was sent in the last build."""
        return max(
            float(match[1]) * _BYTES[match[2]] for line in self.log if (match := _SENT.search(line))
        )


@pytest.fixture
def bench(tmp_path: Path, engine: str, docker_cli: str, registry: str) -> Bench:
    return Bench(tmp_path, engine, docker_cli, registry)


def test_one_line_beside_big_files_is_all_that_is_sent(bench: Bench) -> None:
    changes.start(bench.source)
    (bench.source / "weights").write_bytes(random.Random(1).randbytes(5_000_000))
    bench.build()
    assert bench.sent() >= 5_000_000
    changes.swap("a", "two")(bench.source)
    image = bench.build()
    assert bench.sent() < 100_000
    assert image.files["a"] == b"two"


def test_what_changes_while_a_build_reads_the_folder_is_in_the_next_image(bench: Bench) -> None:
    changes.start(bench.source)
    bench.build()
    other = bench.mirrors.claim(
        FolderClaim("s", "another build"), MirroredTree(bench.source, None), accept, Quiet()
    )
    changes.swap("a", "two")(bench.source)
    assert bench.build().files["a"] == b"two"
    bench.mirrors.release(other)
    changes.swap("a", "six")(bench.source)
    assert bench.build().files["a"] == b"six"


@given(rounds=changes.ROUNDS)
@settings(max_examples=4, deadline=None)
def test_whatever_changes_the_image_is_that_of_a_cold_build(
    engine: str, docker_cli: str, registry: str, rounds: list[tuple[list[changes.Change], bool]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), engine, docker_cli, registry)
        changes.start(bench.source)
        bench.build()
        for done, _ in rounds:
            for change in done:
                change(bench.source)
            found = bench.build().files
            manifest = context.manifest(bench.source, None, Quiet())
            paths = {entry.path.decode() for entry in manifest.entries if entry.sha256}
            assert set(found) == paths
            assert found == {path: changes.read(bench.source / path) for path in paths}
