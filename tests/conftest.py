"""Real servers for all tests, each started once in a session and only if a test asks for it.

A server that is missing is an error, never a skipped test: `scripts/services install` brings what
is needed.
"""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import servers
from certificates import write_with_key

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

pytest_plugins = [
    "aws_fixtures",
    "azure_fixtures",
    "gcp_fixtures",
    "git_fixtures",
    "webhook_receiver",
]
"""The servers and stores of the clouds, git servers, and who is told of builds."""


def pytest_configure() -> None:
    """A terminated session ends as an interrupted one does, so that it still stops its servers.

    And what tests start can be interrupted: a shell's background job, as CI may be, is begun with
    SIGINT ignored. Nor does each of the processes compile what it imports.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DOCKER_HOST of an engine."""
    with servers.docker_engine(tmp_path_factory.mktemp("engine")) as host:
        yield host


@pytest.fixture(scope="session")
def docker_cli() -> str:
    """The path of a docker CLI that speaks BuildKit."""
    return servers.docker_cli()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address, `localhost:PORT`, of a registry that lets everybody in."""
    with servers.docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis; tests that share it keep apart by `key_prefix`."""
    with servers.redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def rabbitmq_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a RabbitMQ."""
    with servers.rabbitmq_server(tmp_path_factory.mktemp("rabbitmq")) as url:
        yield url


@pytest.fixture(scope="session")
def busybox() -> Path:
    """A statically linked busybox, for images that run a program and have no base."""
    return servers.busybox()


@pytest.fixture
def key_prefix() -> str:
    """A key prefix that no other test has."""
    return f"test-{uuid.uuid4().hex}:"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of 127.0.0.1 that signs itself."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    write_with_key(path, "127.0.0.1")
    return path
