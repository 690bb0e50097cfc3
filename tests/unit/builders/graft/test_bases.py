"""What is known of the images that a Dockerfile stands on."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import fakeredis
import pytest

from imagemill.builders.graft.bases import base
from imagemill.reference import ImageReference
from imagemill.registries import blobs_for
from imagemill.registries.blobs import Blobs
from imagemill.registries.docker_config import DockerConfig
from imagemill.state.grafts import Grafts, RedisShelf
from registry_server import RegistryServer, registry_server

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def registry() -> Iterator[RegistryServer]:
    with registry_server() as server:
        yield server


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def pushed(registry: RegistryServer, platforms: list[str]) -> str:
    """An image for these platforms, whose labels say which one it is: its digest."""
    repository = registry.repositories.setdefault("base", registry._repository("base"))

    def put(document: dict[str, object], media_type: str = "") -> str:
        content = json.dumps(document).encode()
        digest = digest_of(content)
        if media_type:
            repository.manifests[digest] = media_type, content
        else:
            repository.blobs[digest] = content
        return digest

    entries = []
    for platform in platforms:
        config = put({"rootfs": {"diff_ids": []}, "config": {"Labels": {"for": platform}}})
        names = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        digest = put({"config": {"digest": config}}, MANIFEST)
        entries.append({"digest": digest, "platform": names})
    return put({"manifests": entries}, INDEX)


@pytest.mark.parametrize(
    ("wanted", "there", "taken"),
    [
        ("linux/amd64", ["linux/arm64/v8", "linux/amd64", "unknown/unknown"], "linux/amd64"),
        ("linux/arm64", ["linux/amd64", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64/v8", ["linux/amd64", "linux/arm64"], "linux/arm64"),
        ("linux/amd64/v2", ["linux/arm64", "linux/amd64"], "linux/amd64"),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"], "linux/arm/v6"),
        ("linux/s390x", ["unknown/unknown", "linux/amd64"], "linux/amd64"),
    ],
)
def test_a_base_image_is_the_one_of_the_platform_or_the_nearest(
    registry: RegistryServer, tmp_path: Path, wanted: str, there: list[str], taken: str
) -> None:
    def registries(image: ImageReference) -> Blobs:
        return blobs_for(image.registry, DockerConfig(tmp_path / "none"))

    known = Grafts(RedisShelf(fakeredis.FakeRedis(), ""))
    pinned = pushed(registry, there)
    for _ in range(2):  # the second time it is known
        found = base(f"{registry.address}/base", pinned, wanted, registries, known)
        assert found.labels == {"for": taken}
