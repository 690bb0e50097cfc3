"""What an earlier image is found by."""

from dataclasses import replace
from pathlib import Path
from typing import cast

from redis import Redis

from imagemill.builders.graft.grafting import GraftPlace, question
from imagemill.config.model import AutoBuilder
from imagemill.context import Entry, Manifest
from imagemill.context.hashing import Inputs
from imagemill.context.manifest import Dockerfile
from imagemill.messages import BuildRequest
from imagemill.ports import BuildInputs
from imagemill.reference import ImageReference
from imagemill.registries.blobs import Blobs
from imagemill.state.grafts import Grafts

TEXT = b"FROM scratch AS a\nCOPY lock /\nRUN x\nFROM a\nCOPY code /\n"
MANIFEST = Manifest(
    Dockerfile("Dockerfile", "11", TEXT),
    (Entry("file", b"code", 1, "22"), Entry("file", b"lock", 1, "33")),
)
GIVEN = Inputs.of(BuildRequest(source="x"), AutoBuilder())


def no_registry(image: ImageReference) -> Blobs:
    raise AssertionError(image)


def key(
    manifest: Manifest = MANIFEST,
    given: Inputs = GIVEN,
    image: str = "example.com/a:1",
    builder: str = "docker",
    tenant: str | None = None,
) -> str:
    place = GraftPlace(no_registry, Grafts(cast(Redis, None), ""), Path())
    inputs = BuildInputs(ImageReference.parse(image))
    return question(manifest, inputs, given, builder, place, tenant).key


def changed(path: bytes) -> Manifest:
    entries = tuple(
        entry._replace(sha256="44") if entry.path == path else entry for entry in MANIFEST.entries
    )
    return Manifest(MANIFEST.dockerfile, entries)


def test_the_code_does_not_count_nor_does_the_repository() -> None:
    assert key(changed(b"code")) == key()
    assert key(image="example.com/b:2") == key()


def test_all_else_counts() -> None:
    others = {
        key(),
        key(changed(b"lock")),
        key(Manifest(Dockerfile("Dockerfile", "12", TEXT), MANIFEST.entries)),
        key(given=replace(GIVEN, build_args={"A": "b"})),
        key(given=replace(GIVEN, platform="linux/arm64")),
        key(given=replace(GIVEN, options={"x": "y"})),
        key(image="example.org/a:1"),
        key(builder="kaniko"),
        key(tenant="one"),
        key(tenant="two"),
    }
    assert len(others) == 10


def test_with_secrets_the_repository_counts_too() -> None:
    secret = replace(GIVEN, secrets=("token",))
    assert key(given=secret) != key(given=secret, image="example.com/b:1")
