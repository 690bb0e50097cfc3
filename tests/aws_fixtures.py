"""The servers of AWS's protocols, and stores on them."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.loaders import create_loader
from botocore.session import Session

import aws_servers
from http_faults import FaultyProxy
from imagemill.clouds import aws
from imagemill.objects import store_for
from imagemill.ports import ContextStore

REGION = "eu-central-1"
_VARIABLES = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an S3 service that checks signatures."""
    with aws_servers.s3(tmp_path_factory.mktemp("s3")) as server:
        yield server.url


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of ECR, STS and IAM."""
    with aws_servers.ecr(tmp_path_factory.mktemp("moto")) as server:
        yield server.url


@pytest.fixture
def aws_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[pytest.MonkeyPatch]:
    """An environment in which the SDK finds nothing but what the test sets."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/aws-config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/aws-credentials")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    aws.forget()
    yield monkeypatch
    aws.forget()


@pytest.fixture
def s3_keys(aws_environment: pytest.MonkeyPatch, s3_server: str) -> pytest.MonkeyPatch:
    """The environment with the S3 service, and the keys of its admin."""
    aws_environment.setenv("AWS_ENDPOINT_URL_S3", s3_server)
    use_keys(aws_environment, *aws_servers.ADMIN)
    return aws_environment


@pytest.fixture(scope="session")
def s3_admin(s3_server: str) -> Any:
    """The SDK's client of who may do everything."""
    return own_client("s3", s3_server, aws_servers.ADMIN)


@pytest.fixture
def s3_bucket(s3_keys: pytest.MonkeyPatch, s3_admin: Any) -> Iterator[str]:
    """The name of a new bucket."""
    name = f"test-{uuid.uuid4().hex}"
    s3_admin.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    yield name
    for entry in s3_admin.list_objects_v2(Bucket=name).get("Contents", ()):
        s3_admin.delete_object(Bucket=name, Key=entry["Key"])
    s3_admin.delete_bucket(Bucket=name)


@pytest.fixture
def s3_store(s3_bucket: str) -> ContextStore:
    """An empty store on the S3 service."""
    return store_for(f"s3://{s3_bucket}/some/path", region=REGION)


@pytest.fixture
def s3_proxy(s3_keys: pytest.MonkeyPatch, s3_bucket: str, s3_server: str) -> Iterator[FaultyProxy]:
    """A proxy between the SDK and the S3 service; the bucket is there already."""
    with FaultyProxy(s3_server) as proxy:
        s3_keys.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        aws.forget()
        yield proxy


@pytest.fixture
def ecr_keys(aws_environment: pytest.MonkeyPatch, moto_server: str) -> pytest.MonkeyPatch:
    """The environment with ECR, STS and IAM."""
    for service in ("ECR", "STS", "IAM"):
        aws_environment.setenv(f"AWS_ENDPOINT_URL_{service}", moto_server)
    use_keys(aws_environment, "testing", "testing")
    return aws_environment


def use_keys(environment: pytest.MonkeyPatch, key: str, secret: str) -> None:
    """Sign from now on with these."""
    environment.setenv("AWS_ACCESS_KEY_ID", key)
    environment.setenv("AWS_SECRET_ACCESS_KEY", secret)
    aws.forget()


def use_temporary_keys(environment: pytest.MonkeyPatch, folder: Path) -> None:
    """Sign from now on with the S3 service's keys as ones that end in an hour."""
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    key, secret = aws_servers.ADMIN
    given = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret, "Expiration": ends}
    (folder / "keys.json").write_text(json.dumps(given))
    config = f"[default]\ncredential_process = cat {folder}/keys.json\n"
    (folder / "aws-config").write_text(config)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        environment.delenv(name)
    aws.forget()


_LOADER = create_loader()
"""Reads the megabytes of JSON that describe each service once."""


def own_client(service: str, url: str, keys: tuple[str, str], **options: Any) -> Any:
    """A client that owes nothing to the environment, for looking behind an adapter's back; with the
    SDK's `options`.
    """
    session = Session()
    session.register_component("data_loader", _LOADER)
    return session.create_client(
        service,
        REGION,
        endpoint_url=url,
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
        config=Config(retries={"total_max_attempts": 3, "mode": "standard"}, **options),
    )
