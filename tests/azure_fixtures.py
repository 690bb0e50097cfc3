"""Azure's servers and stores for tests: Blob storage, Microsoft Entra ID and the metadata of a
machine.

Clients use Azure's own host names. Like behind the proxy of a company, `HTTPS_PROXY` leads them to
a proxy, and `REQUESTS_CA_BUNDLE` names the authority whose certificates they meet there; the proxy
takes them to our servers.
"""

import contextlib
import socket
import socketserver
import ssl
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from azure.core.credentials import AzureNamedKeyCredential
from azure.storage.blob import ContainerClient
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import azure_servers
from azure_token_server import CLIENT, ENTRA, SECRET, TENANT, Entra, entra
from certificates import new_key, write_certificate
from imagemill.clouds import azure
from imagemill.objects.azure import AzureBlobStore
from servers import Server

STORAGE = f"{azure_servers.ACCOUNT}.blob.core.windows.net"
KEY = AzureNamedKeyCredential(azure_servers.ACCOUNT, azure_servers.KEY)

_VARIABLES = (
    *("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"),
    *(
        "AZURE_AUTHORITY_HOST",
        "AZURE_POD_IDENTITY_AUTHORITY_HOST",
        "IDENTITY_ENDPOINT",
        "MSI_ENDPOINT",
        "NO_PROXY",
    ),
    *(
        "AZURE_TOKEN_CREDENTIALS",
        "AZURE_USERNAME",
        "AZURE_CLIENT_CERTIFICATE_PATH",
        "HTTPS_PROXY",
        "https_proxy",
    ),
)


@dataclass(frozen=True)
class Certificate:
    """A certificate for Azure's names, and its key, as PEM files."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """What a server needs to speak TLS with it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass
class Names:
    """A proxy (the method CONNECT of RFC 9110) that takes each of its `hosts` to a port of this
    machine.
    """

    hosts: dict[str, int] = field(default_factory=dict)
    url: str = ""


@pytest.fixture(scope="session")
def azure_certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("azure")
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    key = new_key()
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    write_certificate(made.certificate, key, ENTRA, STORAGE)
    return made


@pytest.fixture(scope="session")
def azurite(
    tmp_path_factory: pytest.TempPathFactory, azure_certificate: Certificate
) -> Iterator[Server]:
    """Blob storage with the account `azure_servers.ACCOUNT`."""
    folder = tmp_path_factory.mktemp("azurite")
    with azure_servers.azurite(
        folder, azure_certificate.certificate, azure_certificate.key
    ) as server:
        yield server


@pytest.fixture(scope="session")
def _entra(azure_certificate: Certificate) -> Iterator[Entra]:
    with entra(azure_certificate.context()) as server:
        yield server


@pytest.fixture
def azure_tokens(_entra: Entra) -> Iterator[Entra]:
    """Microsoft Entra ID, which has been asked nothing yet."""
    yield _entra
    _entra.requests.clear()
    _entra.fault = None


@pytest.fixture
def azure_names(
    azure_tokens: Entra, azure_certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Names]:
    """Azure, where Entra ID is all there is, for a process that has no credentials."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with proxy({ENTRA: azure_tokens.port}) as names, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setenv("HTTPS_PROXY", names.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(azure_certificate.certificate))
        monkeypatch.setenv(
            "AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{nobody.getsockname()[1]}"
        )
        azure.credentials.cache_clear()
        yield names
        azure.credentials.cache_clear()


@pytest.fixture
def azure_client(azure_names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has the credentials of a client of the tenant in its environment."""
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", SECRET)


@pytest.fixture
def azure_container(azurite: Server, azure_names: Names) -> str:
    """The URL of a new container, which is reached under its name in Azure."""
    azure_names.hosts[STORAGE] = int(azurite.url.rpartition(":")[2])
    container = f"https://{STORAGE}/contexts-{uuid.uuid4().hex}"
    with ContainerClient.from_container_url(container, KEY) as client:
        client.create_container()
    return container


@pytest.fixture
def azure_blob_store(azure_container: str, azure_client: None) -> AzureBlobStore:
    """An empty store, which is used with tokens of the default credential chain."""
    return AzureBlobStore(f"{azure_container}/a/prefix")


@pytest.fixture
def azure_blob_key_store(azure_container: str) -> AzureBlobStore:
    """An empty store, which is used with the account's key."""
    return AzureBlobStore(f"{azure_container}/a/prefix", credential=KEY)


@contextlib.contextmanager
def proxy(hosts: dict[str, int]) -> Iterator[Names]:
    """A proxy to these hosts, for the length of the block."""
    names = Names(hosts)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            target = self.rfile.readline().split()[1].decode()
            while self.rfile.readline().strip():
                pass  # headers
            port = names.hosts.get(target.removesuffix(":443"))
            if port is None:
                self.wfile.write(b"HTTP/1.1 502 Unknown host\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", port)) as server:
                self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                back = threading.Thread(target=_copy, args=(server, self.connection), daemon=True)
                back.start()
                _copy(self.connection, server)
                back.join()

    class Proxy(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            """Connections that break are part of the tests."""

    with Proxy(("127.0.0.1", 0), Handler) as server:
        names.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield names
        finally:
            server.shutdown()
            thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Hand on what comes until it ends, and then its end."""
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
    except OSError:
        with contextlib.suppress(OSError):
            source.shutdown(socket.SHUT_RD)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
