"""Azurite, Microsoft's emulator of Azure Blob storage, for tests and benchmarks: like the servers
of `servers.py`.

It speaks TLS and takes both an account's key and access tokens, of which it checks all but the
signature. A client that reaches it under the name `ACCOUNT.blob.core.windows.net` is answered as by
Azure.
"""

import http.client
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import servers
from servers import Server, ServerError

ACCOUNT = "millstore"

KEY = "bm90IGEgc2VjcmV0OiB0aGUga2V5IG9mIHRoZSB0ZXN0cycgb3duIHN0b3JhZ2UgYWNjb3VudA=="
"""The account's key: no secret."""


def azurite(folder: Path, certificate: Path, key: Path) -> Server:
    """Blob storage with one account, whose data lies in the folder; `certificate` and `key` are PEM
    files.
    """
    program = servers.azurite_folder() / "node_modules/azurite/dist/src/blob/main.js"
    if not program.exists():
        raise ServerError(
            f"Azurite {servers.AZURITE} is not installed: run `scripts/services install`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    url = f"https://127.0.0.1:{servers.free_port()}"
    command = [
        servers.program("node"),
        str(program),
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(urlsplit(url).port),
    ]
    command += ["--cert", str(certificate), "--key", str(key), "--oauth", "basic"]
    command += [
        "--skipApiVersionCheck",
        "--disableTelemetry",
        "--silent",
        "--location",
        str(folder),
    ]
    return Server(
        "azurite",
        url,
        command,
        folder,
        lambda: _answers(url),
        {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
    )


def _answers(url: str) -> bool:
    """Whether it says who it is; the certificate is not looked at."""
    parts = urlsplit(url)
    context = ssl._create_unverified_context()
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port, timeout=5, context=context
    )
    try:
        connection.request("GET", "/")
        return (connection.getresponse().headers.get("Server") or "").startswith("Azurite-Blob")
    finally:
        connection.close()
