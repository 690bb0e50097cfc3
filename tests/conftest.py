"""Real servers for all tests, each started once in a session and only if a test asks for it.

A server that is missing is an error, never a skipped test: `scripts/services install` brings what is needed.
"""

import datetime
import ipaddress
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import settings

import servers

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

pytest_plugins = ["aws_fixtures", "azure_fixtures", "gcp_fixtures", "git_fixtures"]
"""The servers and stores of the clouds, and git servers."""


def pytest_configure() -> None:
    """A terminated session ends as an interrupted one does, so that it still stops its servers.

    And what tests start can be interrupted: a shell's background job, as CI may be, is begun with SIGINT ignored.
    """
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
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server of the tests")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    signed = builder.add_extension(address, critical=False).sign(key, SHA256())
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + signed.public_bytes(Encoding.PEM))
    return path
