"""The chain with contexts in Azure's Blob storage: workers that find it, and their credentials, as
they would there.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from azure_fixtures import KEY
from service import Service, service

CONFIG = """\
environment: {{type: azure}}
builder:
  type: docker
  destination: {registry}/chain-azure/{name}
  build-context-store: {store}/contexts
"""
VARIABLES = (
    "HTTPS_PROXY",
    "REQUESTS_CA_BUNDLE",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
)


@pytest.fixture
def running(
    tmp_path: Path,
    redis_url: str,
    key_prefix: str,
    registry: str,
    engine: str,
    docker_cli: str,
    azure_container: str,
    azure_client: None,
) -> Iterator[Service]:
    """Two workers that share nothing but the container: one hashes and packs, the other builds."""
    config = tmp_path / "launch-config.yaml"
    name = azure_container.rpartition("/")[2]
    config.write_text(CONFIG.format(registry=registry, name=name, store=azure_container))
    settings = {
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": docker_cli,
        "IMAGEMILL_CONFIG": str(config),
        **{name: os.environ[name] for name in VARIABLES},
    }
    with service(redis_url, redis_url, key_prefix, tmp_path, **settings) as workers:
        workers.start("light", queues="imagemill")
        workers.settings["IMAGEMILL_SOURCE_ROOTS"] = str(tmp_path / "nothing")
        workers.start("docker", queues="imagemill.docker")
        yield workers


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Something to build, larger than what is sent at once."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (folder / "weights").write_bytes(os.urandom(12_000_000))
    return folder


def test_a_context_goes_through_the_container_and_is_gone_afterwards(
    running: Service, project: Path, azure_container: str
) -> None:
    report = running.client.wait(
        running.client.submit(source=str(project)), timeout=120
    ).raise_for_status()
    again = running.client.wait(
        running.client.submit(source=str(project)), timeout=120
    ).raise_for_status()

    assert report.built
    assert report.digest == again.digest
    assert not again.built
    with ContainerClient.from_container_url(azure_container, KEY) as container:
        assert list(container.list_blob_names()) == []


def test_credentials_that_cannot_be_used_fail_the_build_and_are_told(
    running: Service, project: Path
) -> None:
    running.stop()
    running.settings |= {
        "AZURE_TOKEN_CREDENTIALS": "nonsense",
        "IMAGEMILL_SOURCE_ROOTS": str(project.parent),
    }
    running.start("other", queues="imagemill,imagemill.docker")
    report = running.client.wait(running.client.submit(source=str(project)), timeout=120)

    assert report.error is not None
    assert report.error.kind == "OperatorError"
    assert report.error.message.startswith("The Azure credentials cannot be used: ")
    assert "AZURE_TOKEN_CREDENTIALS" in report.error.hint
