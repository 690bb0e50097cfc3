"""Folders that only the caller can read, on workers elsewhere: the store is all that they share."""

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aws_fixtures
import aws_servers
import servers
import trees
from command_line import CommandLine, command_line
from http_faults import FaultyProxy
from imagemill.client import Client
from imagemill.errors import ServiceUnreachable
from imagemill.messages import BuildReport, BuildRequest
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
    config.write_text(
        CONFIG.format(region=aws_fixtures.REGION, registry=registry, name=name, store=store)
    )
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


def uploads(s3_admin: Any, bucket: str) -> list[str]:
    listed = s3_admin.list_objects_v2(Bucket=bucket, Prefix="contexts/uploads/").get("Contents", [])
    return [item["Key"] for item in listed]


def test_a_folder_is_brought_to_workers_that_share_no_disk_with_us(
    cli: CommandLine, proxy: FaultyProxy, project: Path, s3_admin: Any, s3_bucket: str
) -> None:
    first = report(cli, project, "--file", "docker/Dockerfile")
    assert first.built
    assert (
        first.source_hash == cli.run("hash", project, "--file", "docker/Dockerfile").stdout.strip()
    )
    assert sent(proxy) > 0
    (kept,) = uploads(s3_admin, s3_bucket)
    assert kept.startswith("contexts/uploads/")
    proxy.requests.clear()
    second = report(cli, project, "--file", "docker/Dockerfile")
    assert not second.built
    assert second.digest == first.digest
    assert sent(proxy) == 0


def test_what_is_in_the_store_already_is_not_sent_again(
    cli: CommandLine, proxy: FaultyProxy, project: Path
) -> None:
    report(cli, project, "--file", "docker/Dockerfile")
    proxy.requests.clear()
    again = report(cli, project, "--file", "docker/Dockerfile", "--label", "team=search")
    assert again.built
    assert sent(proxy) == 0


def test_what_somebody_else_puts_in_its_place_is_not_built(
    cli: CommandLine, running: Service, project: Path, s3_admin: Any, s3_bucket: str
) -> None:
    report(cli, project, "--file", "docker/Dockerfile")
    (kept,) = uploads(s3_admin, s3_bucket)
    s3_admin.put_object(Bucket=s3_bucket, Key=kept, Body=b"another", ChecksumAlgorithm="CRC32")
    fields = ("--file", "docker/Dockerfile", "--build-arg", f"A={uuid.uuid4().hex}")
    shutil.rmtree(running.folder / "state/sources")  # else the node has what was there before
    refused = report(cli, project, *fields)
    assert refused.error is not None
    assert "SHA-256" in refused.error.message
    assert report(cli, project, *fields, "--force").built


def test_a_project_without_a_dockerfile_goes_the_same_way(
    cli: CommandLine, tmp_path: Path, registry: str
) -> None:
    folder = trees.make(
        tmp_path / "plain", {"train.py": uuid.uuid4().hex, "x/__pycache__/y.pyc": ""}
    )
    base = ("--base", f"{registry}/none:1")
    failed = report(cli, folder, *base)
    assert failed.source_hash == cli.run("hash", folder, *base).stdout.strip()


def test_a_config_that_is_wrong_is_told_before_anything_is_packed(
    cli: CommandLine, proxy: FaultyProxy, project: Path
) -> None:
    done = cli.run("build", project, "--file", "docker/Dockerfile", "--config", "missing")
    assert done.returncode == 2
    assert "missing" in done.stderr
    assert proxy.requests == []


def test_without_uploading_workers_have_to_read_the_folder_themselves(
    cli: CommandLine, project: Path
) -> None:
    done = cli.run("build", project, "--file", "docker/Dockerfile", "--no-upload")
    assert done.returncode == 1
    assert "may not read sources" in done.stderr


def test_without_workers_it_is_said_how_to_go_on(project: Path, redis_url: str) -> None:
    nobody = Client(redis_url, key_prefix=f"{uuid.uuid4().hex}:")
    with nobody, pytest.raises(ServiceUnreachable, match="No worker said") as raised:
        nobody.plan_upload(BuildRequest(source=str(project)), timeout=0.2)
    assert "--no-upload" in raised.value.hint


def test_a_broker_that_is_away_is_said_to_be(cli: CommandLine, project: Path) -> None:
    away = cli.run(
        "build", project, IMAGEMILL_BROKER=f"redis://:pa55@127.0.0.1:{servers.free_port()}/0"
    )
    assert away.returncode == 3
    assert "does not answer" in away.stderr
    assert "pa55" not in away.stderr
