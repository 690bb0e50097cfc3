"""The chain with archives that lie elsewhere."""

import hashlib
import io
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aws_fixtures
import aws_servers
from service import Service, service


@pytest.fixture
def archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in {
            "app/Dockerfile": b"FROM scratch\nCOPY . /\n",
            "app/id": uuid.uuid4().hex.encode(),
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def running(
    tmp_path: Path, redis_url: str, key_prefix: str, engine: str, docker_cli: str, s3_server: str
) -> Iterator[Service]:
    key, secret = aws_servers.ADMIN
    settings = {
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": docker_cli,
        "AWS_ENDPOINT_URL_S3": s3_server,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": aws_fixtures.REGION,
    }
    with service(redis_url, redis_url, key_prefix, tmp_path, **settings) as workers:
        workers.start()
        yield workers


def test_an_archive_in_a_bucket_is_built_as_it_was_when_its_build_began(
    running: Service, registry: str, s3_bucket: str, s3_admin: Any, archive: bytes
) -> None:
    client = s3_admin
    client.put_object(Bucket=s3_bucket, Key="sources/model.tar.gz", Body=archive)
    source = f"s3://{s3_bucket}/sources/model.tar.gz#subdirectory=app"
    fields: dict[str, Any] = {"source": source, "destination": f"{registry}/artifacts/{s3_bucket}"}
    report = running.client.wait(running.client.submit(**fields), timeout=120).raise_for_status()
    again = running.client.submit(**fields)
    assert report.built
    assert not running.client.wait(again, timeout=120).raise_for_status().built
    assert any("was hashed before" in line for line in running.client.logs(again))


def test_an_archive_without_the_digest_that_it_should_have_is_not_built(
    running: Service, registry: str, s3_bucket: str, s3_admin: Any, archive: bytes
) -> None:
    s3_admin.put_object(Bucket=s3_bucket, Key="model.tar.gz", Body=archive)
    sha256 = hashlib.sha256(b"another").hexdigest()
    build = running.client.submit(
        source=f"s3://{s3_bucket}/model.tar.gz#sha256={sha256}",
        destination=f"{registry}/artifacts/{s3_bucket}",
    )
    failure = running.client.wait(build, timeout=120).error
    assert failure is not None
    assert failure.kind == "UserError"
    assert sha256 in failure.message
    assert hashlib.sha256(archive).hexdigest() in failure.message
