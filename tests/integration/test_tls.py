"""A service whose broker speaks TLS: clients, workers and the command line verify its
certificate.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Queue

import pytest
from celery import Celery

import servers
from certificates import write_with_key
from command_line import command_line
from imagemill.client import Client
from imagemill.errors import ServiceUnreachable
from service import service
from worker.celeryconfig import configuration
from worker.settings import Settings

PASSWORD = "p%40s%2Fs%23%25"
"""As it stands in a URL."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of the Redis, which signs itself, with its key."""
    path = tmp_path_factory.mktemp("authority") / "redis.pem"
    write_with_key(path, "127.0.0.1")
    return path


@pytest.fixture(scope="module")
def address(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL, without any of TLS's own options, of a Redis that speaks nothing else."""
    port, folder = servers.free_port(), tmp_path_factory.mktemp("redis")
    command = [servers.program("redis-server"), "--bind", "127.0.0.1", "--port", "0"]
    command += ["--tls-port", str(port), "--tls-auth-clients", "no", "--dir", str(folder)]
    command += ["--tls-cert-file", str(authority), "--tls-key-file", str(authority)]
    command += ["--set-proc-title", "no", "--requirepass", "p@s/s#%"]
    context = ssl.create_default_context(cafile=str(authority))

    def ready() -> bool:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=1) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.sendall(b"PING\r\n")
            return b"NOAUTH" in connection.recv(100)

    url = f"rediss://:{PASSWORD}@127.0.0.1:{port}/0"
    with servers.Server("redis", url, command, folder, ready) as server:
        yield server.url


def test_a_build_goes_over_tls_for_all(
    address: str, authority: Path, key_prefix: str, tmp_path: Path
) -> None:
    url = f"{address}?ssl_ca_certs={authority}"
    with service(url, url, key_prefix, tmp_path) as running:
        running.start()
        build = running.client.submit(tmp_path / "nothing", "localhost:1/x")
        report = running.client.wait(build, timeout=60)
        assert report.error is not None
        assert "nothing" in report.error.message
        with command_line(IMAGEMILL_BROKER=url, IMAGEMILL_KEY_PREFIX=key_prefix) as cli:
            done = cli.run("status", build)
            assert "FAILED" in done.stdout, done.stderr


@pytest.mark.parametrize("query", ["", "?ssl_cert_reqs=CERT_REQUIRED", "?ssl_cert_reqs=required"])
def test_a_certificate_that_nobody_vouches_for_is_refused(address: str, query: str) -> None:
    with Client(f"{address}{query}") as client, pytest.raises(ServiceUnreachable) as raised:
        client.submit("/src")
    assert "p@s" not in str(raised.value)
    assert PASSWORD not in str(raised.value)


def test_a_certificate_is_not_asked_for_where_the_url_says_so(address: str) -> None:
    with Client(f"{address}?ssl_cert_reqs=none") as client:
        assert client.status(client.submit("/src")).state == "QUEUED"


@pytest.mark.parametrize("who", ["client", "worker"])
@pytest.mark.parametrize("name", ["127.0.0.1", "elsewhere.example.com"])
def test_the_certificate_of_a_rabbitmq_is_for_its_host(
    who: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_with_key(tmp_path / "own.pem", name)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")
    heard: Queue[bytes] = Queue()

    def listen(listener: socket.socket) -> None:
        plain, _ = listener.accept()
        with suppress(ssl.SSLError), context.wrap_socket(plain, server_side=True) as connection:
            heard.put(connection.recv(8))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=listen, args=(listener,), daemon=True).start()
        url = f"amqps://127.0.0.1:{listener.getsockname()[1]}//"
        if who == "client":
            app = Client(url, "redis://localhost").app
        else:
            app = Celery()
            app.conf.update(configuration(Settings(broker=url, backend="redis://localhost")))
        wrong = name != "127.0.0.1"
        with (
            app.connection_for_write() as broker,
            pytest.raises(OSError, match="certificate is not valid for" if wrong else "closed"),
        ):
            broker.transport.establish_connection()
    if not wrong:
        assert heard.get(timeout=10).startswith(b"AMQP")
