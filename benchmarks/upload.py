"""Storing a large context in each cloud's store: against the SDK's own upload of the same file, and
in how much memory.

The servers run on this machine, so that it is the client that is measured. Each upload is a process
of its own.
"""

import datetime
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import sized

SIZE = sized(2_000_000_000, 20_000_000)
ROUNDS = sized(2, 1)
MIB = 1 << 20
NAME = "context.tar.gz"
REGION = "us-east-1"


@dataclass(frozen=True)
class Place:
    """An empty store, and what the SDK needs in its environment to reach it."""

    uri: str
    environment: Mapping[str, str]


def measure() -> dict[str, float]:
    """`upload_vs_sdk`: a ratio of times, and `upload_rss_mb`: MiB; of the store where it is the
    most.
    """
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = folder / "content"
        with content.open("wb") as file:
            for _ in range(SIZE // MIB):
                file.write(os.urandom(MIB))
        for kind, place in PLACES.items():
            with place(folder / kind) as store:
                turns = [
                    [_upload(side, kind, store, content) for side in ("ours", "sdk")]
                    for _ in range(ROUNDS)
                ]
            quickest = [min(turn[side][0] for turn in turns) for side in (0, 1)]
            figures[f"upload_vs_sdk_{kind}"] = quickest[0] / quickest[1]
            figures[f"upload_rss_mb_{kind}"] = max(turn[0][1] for turn in turns)
    worst = {
        key: max(figure for name, figure in figures.items() if name.startswith(key))
        for key in ("upload_vs_sdk", "upload_rss_mb")
    }
    return {**figures, **worst}


def _upload(side: str, kind: str, place: Place, content: Path) -> tuple[float, float]:
    """Seconds, and the process's peak memory in MiB."""
    command = [sys.executable, "-m", "benchmarks.upload", side, kind, place.uri, str(content)]
    environment = {**os.environ, **place.environment}
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[1],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, memory = done.stdout.split()
    return float(seconds), float(memory)


# --- The servers ---


@contextmanager
def _s3(folder: Path) -> Iterator[Place]:
    import boto3  # type: ignore[import-untyped]

    import aws_servers

    key, secret = aws_servers.ADMIN
    with aws_servers.s3(folder) as server:
        environment = {
            "AWS_ENDPOINT_URL_S3": server.url,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": REGION,
        }
        s3: Any = boto3.client(
            "s3",
            REGION,
            endpoint_url=server.url,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
        )
        s3.create_bucket(Bucket="contexts")
        yield Place("s3://contexts/bench", environment)


@contextmanager
def _gcs(folder: Path) -> Iterator[Place]:
    from gcp_servers import drain

    # Not the emulator of the tests, which hashes all that it has again with each piece.
    with drain(folder) as server:
        yield Place("gs://contexts/bench", {"STORAGE_EMULATOR_HOST": server.url})


@contextmanager
def _azure(folder: Path) -> Iterator[Place]:
    import azure_servers

    folder.mkdir()
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    _write_certificate(certificate, key)
    with azure_servers.azurite(folder / "azurite", certificate, key) as server:
        port = server.url.rpartition(":")[2]
        yield Place(
            f"https://{_azure_host()}/contexts/bench",
            {"REQUESTS_CA_BUNDLE": str(certificate), "AZURITE_PORT": port},
        )


PLACES: Mapping[str, Callable[[Path], Any]] = {"s3": _s3, "gcs": _gcs, "azure": _azure}


def _azure_host() -> str:
    import azure_servers

    return f"{azure_servers.ACCOUNT}.blob.core.windows.net"


def _write_certificate(certificate: Path, key_file: Path) -> None:
    """A certificate for the account's name in Azure, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.DNSName(_azure_host())]), critical=False
    )
    certificate.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


# --- One upload, in a process of its own ---


def upload(side: str, kind: str, uri: str, content: Path) -> tuple[float, float]:
    """Upload the content as we do (`ours`) or as the SDK does (`sdk`), and remove it again; seconds
    and MiB.
    """
    action = {"ours": _as_we_do, "sdk": _AS_THE_SDK[kind]}[side]
    if kind == "azure":
        _lead_to_azurite(int(os.environ["AZURITE_PORT"]))
    begun = time.perf_counter()
    action(uri, content)
    seconds = time.perf_counter() - begun
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    if kind != "gcs":  # whose server keeps nothing
        _store(uri).delete(NAME)
    return seconds, int(status["VmHWM"].split()[0]) / 1024


def _store(uri: str) -> Any:
    from imagemill.objects import store_for

    if not uri.startswith("https:"):
        return store_for(uri, region=REGION)
    from imagemill.objects.azure import AzureBlobStore

    return AzureBlobStore(uri, credential=_azure_key())


def _as_we_do(uri: str, content: Path) -> None:
    with _store(uri).create(NAME) as stream, content.open("rb") as file:
        while block := file.read(MIB):
            stream.write(block)


def _boto3(uri: str, content: Path) -> None:
    import boto3

    s3: Any = boto3.client("s3", REGION)
    s3.upload_file(str(content), "contexts", f"bench/{NAME}")


def _google(uri: str, content: Path) -> None:
    from google.cloud.storage import Client  # type: ignore[import-untyped]

    blob: Any = Client().bucket("contexts").blob(f"bench/{NAME}")
    blob.upload_from_filename(str(content))


def _azure_sdk(uri: str, content: Path) -> None:
    from azure.storage.blob import BlobClient

    with (
        BlobClient.from_blob_url(f"{uri}/{NAME}", _azure_key()) as blob,
        content.open("rb") as file,
    ):
        blob.upload_blob(file)


_AS_THE_SDK: Mapping[str, Callable[[str, Path], None]] = {
    "s3": _boto3,
    "gcs": _google,
    "azure": _azure_sdk,
}


def _azure_key() -> Any:
    from azure.core.credentials import AzureNamedKeyCredential

    import azure_servers

    return AzureNamedKeyCredential(azure_servers.ACCOUNT, azure_servers.KEY)


def _lead_to_azurite(port: int) -> None:
    """Have this process find the account's name in Azure at Azurite, and a container there."""
    from azure.core.exceptions import ResourceExistsError
    from azure.storage.blob import ContainerClient
    from urllib3.util import connection

    connect = connection.create_connection
    connection.create_connection = lambda address, *rest, **named: connect(
        ("127.0.0.1", port), *rest, **named
    )
    container = ContainerClient.from_container_url(
        f"https://{_azure_host()}/contexts", _azure_key()
    )
    with container, suppress(ResourceExistsError):
        container.create_container()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(*upload(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])))
    else:
        for key, value in measure().items():
            print(f"{key} {value:.2f}")
