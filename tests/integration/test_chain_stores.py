"""The chain with contexts in a cloud's store: packed on one worker, built on another, and gone
afterwards.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aws_fixtures
import aws_servers
from imagemill.objects import store_for
from service import Service, service, until

CONFIG = """\
environment: {environment}
builder:
  type: docker
  destination: {registry}/chain-stores/{name}
  build-context-store: {store}
"""


ENDPOINTS = {"AWS_ENDPOINT_URL_S3", "STORAGE_EMULATOR_HOST"}
"""The variables that say where a store's server is."""


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> tuple[str, str, dict[str, str]]:
    """The `environment` section, the URI of an empty store, and what a worker needs in its
    environment for it.
    """
    if request.param == "s3":
        bucket, server = request.getfixturevalue("s3_bucket"), request.getfixturevalue("s3_server")
        key, secret = aws_servers.ADMIN
        variables = {
            "AWS_ENDPOINT_URL_S3": server,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
        }
        return f"{{type: aws, region: {aws_fixtures.REGION}}}", f"s3://{bucket}/contexts", variables
    bucket, server = request.getfixturevalue("gcs_bucket"), request.getfixturevalue("gcs_server")
    request.getfixturevalue("gcs_emulator")
    return "{type: local}", f"gs://{bucket}/contexts", {"STORAGE_EMULATOR_HOST": server}


@pytest.fixture
def prepared(
    tmp_path: Path,
    redis_url: str,
    key_prefix: str,
    registry: str,
    engine: str,
    docker_cli: str,
    store: tuple[str, str, dict[str, str]],
) -> Iterator[Service]:
    """A service without workers yet, whose contexts go into the store."""
    environment, uri, variables = store
    config = tmp_path / "launch-config.yaml"
    name = uri.split("/")[2]
    config.write_text(
        CONFIG.format(environment=environment, registry=registry, name=name, store=uri)
    )
    settings = {
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": docker_cli,
        "IMAGEMILL_CONFIG": str(config),
        **variables,
    }
    with service(redis_url, redis_url, key_prefix, tmp_path, **settings) as workers:
        yield workers


@pytest.fixture
def running(prepared: Service, tmp_path: Path) -> Service:
    """Two workers that share nothing but the store: one hashes and packs, the other builds."""
    prepared.start("light", queues="imagemill")
    prepared.settings["IMAGEMILL_SOURCE_ROOTS"] = str(tmp_path / "nothing")
    prepared.start("docker", queues="imagemill.docker")
    return prepared


def test_a_context_goes_through_the_store_and_is_gone_afterwards(
    running: Service, tmp_path: Path, store: tuple[str, str, dict[str, str]]
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (project / "weights").write_bytes(bytes(3_000_000))
    fields: dict[str, Any] = {"source": str(project)}
    report = running.client.wait(running.client.submit(**fields), timeout=120).raise_for_status()
    again = running.client.wait(running.client.submit(**fields), timeout=120).raise_for_status()

    assert report.built
    assert report.digest == again.digest
    assert not again.built
    region = aws_fixtures.REGION if store[1].startswith("s3") else None
    contexts, name = store_for(store[1], region=region), f"{report.source_hash}-{report.id}.tar.gz"
    # It is removed once the report is written.
    until(lambda: not contexts.exists(name), "the end of the context", lambda: running.log)


def test_each_of_two_images_of_one_source_has_a_context_of_its_own(
    running: Service, tmp_path: Path, registry: str, store: tuple[str, str, dict[str, str]]
) -> None:
    """So whichever build ends first takes nothing away from the other."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    builds = [
        running.client.submit(
            source=str(project), destination=f"{registry}/chain-stores/{uuid.uuid4().hex}"
        )
        for _ in range(3)
    ]
    reports = [running.client.wait(each, timeout=120).raise_for_status() for each in builds]

    assert len({report.source_hash for report in reports}) == 1
    assert [report.built for report in reports] == [True] * 3
    assert not [line for each in builds for line in running.client.logs(each) if "again" in line]


def test_a_store_that_is_not_there_fails_the_build_and_says_so(
    running: Service, tmp_path: Path, store: tuple[str, str, dict[str, str]]
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    config = tmp_path / "launch-config.yaml"
    there = f"//{store[1].split('/')[2]}"
    config.write_text(config.read_text().replace(there, "//there-is-no-such-bucket"))
    report = running.client.wait(running.client.submit(source=str(project)), timeout=120)

    assert report.error is not None
    assert report.error.kind == "UserError"
    assert "there-is-no-such-bucket" in report.error.message
    assert report.error.hint
