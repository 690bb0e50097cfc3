"""Puts small images into a registry through its API, without an engine."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import urllib3

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


class RefusedError(Exception):
    """The registry has answered with another status than one of success."""

    def __init__(self, method: str, url: str, status: int, body: bytes) -> None:
        super().__init__(f"{method} {url}: {status} {body!r}")
        self.status = status


class Pusher:
    """Writes to one repository; `headers` hold the authorization for it."""

    def __init__(self, address: str, path: str, headers: Mapping[str, str] | None = None) -> None:
        self._base = f"http://{address}/v2/{path}"
        self._headers = dict(headers or {})

    def image(self, tag: str, media_type: str = OCI_MANIFEST, label: str = "") -> str:
        """Push an image of no layers; images differ by their label. Returns the digest."""
        config = json.dumps(
            {"config": {"Labels": {"label": label}}, "rootfs": {"type": "layers", "diff_ids": []}}
        )
        kind = "application/vnd.docker.container.image.v1+json"
        if media_type == OCI_MANIFEST:
            kind = "application/vnd.oci.image.config.v1+json"
        descriptor = {"mediaType": kind, **self._blob(config.encode())}
        return self.manifest(tag, media_type, {"config": descriptor, "layers": []})

    def index(self, tag: str, media_type: str, image: str, image_type: str) -> str:
        """Push a list with one image that is there already, given by its digest. Returns the list's
        digest.
        """
        size = int(
            self._request("HEAD", f"manifests/{image}", {"Accept": image_type}).headers[
                "Content-Length"
            ]
        )
        entry = {"mediaType": image_type, "digest": image, "size": size}
        platform = {"architecture": "amd64", "os": "linux"}
        return self.manifest(tag, media_type, {"manifests": [{**entry, "platform": platform}]})

    def manifest(self, name: str, media_type: str, parts: Mapping[str, Any]) -> str:
        """Push a manifest under a tag or a digest. Returns the digest."""
        body = json.dumps({"schemaVersion": 2, "mediaType": media_type, **parts}).encode()
        self._request("PUT", f"manifests/{name}", {"Content-Type": media_type}, body)
        return _digest(body)

    def _blob(self, content: bytes) -> dict[str, Any]:
        digest = _digest(content)
        upload = self._request("POST", "blobs/uploads/").headers["Location"]
        separator = "&" if "?" in upload else "?"
        self._request(
            "PUT",
            f"{upload}{separator}digest={digest}",
            {"Content-Type": "application/octet-stream"},
            content,
        )
        return {"digest": digest, "size": len(content)}

    def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> urllib3.BaseHTTPResponse:
        absolute = url if url.startswith("http") else f"{self._base}/{url}"
        with urllib3.PoolManager() as http:
            answer = http.request(
                method, absolute, body=body, headers={**self._headers, **(headers or {})}
            )
        if answer.status >= 300:
            raise RefusedError(method, url, answer.status, answer.data)
        return answer


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
