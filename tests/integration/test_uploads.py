"""Folders that only the caller can read, on workers elsewhere: the store is all that they share."""

import io
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aws_fixtures
import aws_servers
import trees
from command_line import CommandLine, command_line
from http_faults import FaultyProxy
from imagemill import context
from imagemill.build import BuildReport
from imagemill.ports import Quiet
from imagemill.stores import store_for
from service import Service, service

CONFIG = """\
environment: {{type: aws, region: {region}}}
builder:
  type: docker
  destination: {registry}/uploads/{name}
  build-context-store: {store}
"""


@pytest.fixture
def proxy(s3_server: str) -> Iterator[FaultyProxy]:
    """The store, behind something that counts what it is asked by the caller."""
    with FaultyProxy(s3_server) as running:
        yield running


@pytest.fixture
def store(s3_bucket: str) -> str:
    return f"s3://{s3_bucket}/contexts"


@pytest.fixture
def running(
    tmp_path: Path,
    redis_url: str,
    key_prefix: str,
    registry: str,
    engine: str,
    docker_cli: str,
    s3_server: str,
    store: str,
) -> Iterator[Service]:
    """A worker that may read no folder at all."""
    config = tmp_path / "launch-config.yaml"
    name = uuid.uuid4().hex
    config.write_text(CONFIG.format(region=aws_fixtures.REGION, registry=registry, name=name, store=store))
    key, secret = aws_servers.ADMIN
    settings = {
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": docker_cli,
        "IMAGEMILL_CONFIG": str(config),
        "IMAGEMILL_SOURCE_ROOTS": str(tmp_path / "nothing"),
        "AWS_ENDPOINT_URL_S3": s3_server,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
    }
    with service(redis_url, redis_url, key_prefix, tmp_path, **settings) as workers:
        workers.start()
        yield workers


@pytest.fixture
def cli(running: Service, proxy: FaultyProxy) -> Iterator[CommandLine]:
    """A command line that knows the service, and may write to its store."""
    key, secret = aws_servers.ADMIN
    with command_line(
        IMAGEMILL_BROKER=running.broker,
        IMAGEMILL_KEY_PREFIX=running.prefix,
        AWS_ENDPOINT_URL_S3=proxy.url,
        AWS_ACCESS_KEY_ID=key,
        AWS_SECRET_ACCESS_KEY=secret,
    ) as cli:
        yield cli


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "docker/Dockerfile": "FROM scratch\nCOPY . /\n",
        "main.py": uuid.uuid4().hex,
        "run": "x",
        ".dockerignore": "*.md",
    }
    folder = trees.make(tmp_path / "project", {**files, "README.md": ""})
    (folder / "run").chmod(0o755)
    (folder / "link").symlink_to("main.py")
    return folder


def report(cli: CommandLine, *arguments: Any) -> BuildReport:
    done = cli.run("build", *arguments, "--json")
    return BuildReport.load(json.loads(done.stdout))


def sent(proxy: FaultyProxy) -> int:
    return sum(method in ("PUT", "POST") for method, _ in proxy.requests)


def test_a_folder_is_brought_to_workers_that_share_no_disk_with_us(
    cli: CommandLine, proxy: FaultyProxy, project: Path, store: str
) -> None:
    first = report(cli, project, "--file", "docker/Dockerfile")
    assert first.built
    assert first.source_hash == cli.run("hash", project, "--file", "docker/Dockerfile").stdout.strip()
    assert sent(proxy) > 0
    proxy.requests.clear()
    second = report(cli, project, "--file", "docker/Dockerfile")
    assert not second.built
    assert second.digest == first.digest
    assert sent(proxy) == 0
    assert not store_for(store, region=aws_fixtures.REGION).exists(f"{first.source_hash}.tar.gz")


def test_a_context_that_is_there_already_is_not_sent_again(
    cli: CommandLine, proxy: FaultyProxy, project: Path, store: str, running: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    source_hash = cli.run("hash", project, "--file", "docker/Dockerfile").stdout.strip()
    key, secret = aws_servers.ADMIN
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.settings["AWS_ENDPOINT_URL_S3"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    with store_for(store, region=aws_fixtures.REGION).create(f"{source_hash}.tar.gz") as stream:
        context.pack(project, "docker/Dockerfile", stream, Quiet())
    assert report(cli, project, "--file", "docker/Dockerfile").built
    assert sent(proxy) == 0


def test_a_context_that_is_not_what_its_hash_says_is_not_built(
    running: Service, project: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = aws_servers.ADMIN
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.settings["AWS_ENDPOINT_URL_S3"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    wrong = "a" * 64
    packed = io.BytesIO()
    context.pack(project, "docker/Dockerfile", packed, Quiet())
    with store_for(store, region=aws_fixtures.REGION).create(f"{wrong}.tar.gz") as stream:
        stream.write(packed.getvalue())
    build = running.client.submit(source=f"context://{wrong}", dockerfile="docker/Dockerfile")
    failure = running.client.wait(build, timeout=60).error
    assert failure is not None
    assert failure.kind == "UserError"
    assert "is not what its hash says" in failure.message


def test_a_context_that_is_not_there_is_told(running: Service) -> None:
    build = running.client.submit(source=f"context://{'b' * 64}")
    failure = running.client.wait(build, timeout=60).error
    assert failure is not None
    assert "is not in the context store" in failure.message
    assert "build again" in failure.hint


def test_a_config_that_is_wrong_is_told_before_anything_is_packed(
    cli: CommandLine, proxy: FaultyProxy, project: Path
) -> None:
    done = cli.run("build", project, "--file", "docker/Dockerfile", "--config", "missing")
    assert done.returncode == 2
    assert "missing" in done.stderr
    assert proxy.requests == []


def test_without_uploading_workers_have_to_read_the_folder_themselves(cli: CommandLine, project: Path) -> None:
    done = cli.run("build", project, "--file", "docker/Dockerfile", "--no-upload")
    assert done.returncode == 1
    assert "may not read sources" in done.stderr


def test_a_registry_that_is_away_for_a_moment_is_asked_again(
    cli: CommandLine, project: Path, registry: str, running: Service
) -> None:
    with FaultyProxy(f"http://{registry}") as away:
        away.fail_next(503, match="/manifests/")
        destination = f"localhost:{away.url.rpartition(':')[2]}/uploads/{uuid.uuid4().hex}"
        assert report(cli, project, "--file", "docker/Dockerfile", "--destination", destination).built
    assert "Retry" in running.log
