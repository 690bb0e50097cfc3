"""Which adapter a registry gets."""

import subprocess
import sys
from pathlib import Path

from imagemill.reference import ImageReference
from imagemill.registries import ADAPTERS, HOSTS, registry_for
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import OciRegistry, endpoint


def test_any_host_has_an_oci_registry(tmp_path: Path) -> None:
    for text in ("busybox", "localhost:5000/a", "[::1]:5000/a", "ghcr.io/a/b"):
        registry = registry_for(ImageReference.parse(text), docker_config=DockerConfig(tmp_path))
        assert isinstance(registry, OciRegistry)


def test_adapter_is_kept_for_its_tokens_but_not_shared_between_settings(tmp_path: Path) -> None:
    image = ImageReference.parse("localhost:5000/a")
    config = DockerConfig(tmp_path)
    registry = registry_for(image, docker_config=config)
    assert registry_for(image.with_tag("v1"), docker_config=DockerConfig(tmp_path)) is registry
    assert registry_for(image, docker_config=DockerConfig(tmp_path / "other")) is not registry
    assert (
        registry_for(image, docker_config=config, insecure=frozenset({"localhost:5000"}))
        is not registry
    )


def test_every_host_pattern_names_an_adapter_that_is_there() -> None:
    assert {name for _, name in HOSTS} <= ADAPTERS.keys()


def test_docker_hub_answers_at_another_host_than_its_images_name() -> None:
    assert endpoint("docker.io") == "registry-1.docker.io"
    assert endpoint("ghcr.io") == "ghcr.io"


def test_importing_the_table_imports_no_adapter() -> None:
    script = "import sys, imagemill.registries; sys.exit('imagemill.registries.oci' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
