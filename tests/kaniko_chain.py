"""Kaniko, as tests of the whole chain play it: a Job of a build runs, and pushes."""

import hashlib
import json
from typing import Any

from urllib3 import request

from imagemill.reference import ImageReference
from kubernetes_server import KubernetesServer
from service import Service, until

CONFIG = """\
builder:
  type: kaniko
  destination: {registry}/chain-kaniko/{name}
  build-context-store: {store}
  context-volume-claim: contexts
"""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def job(cluster: KubernetesServer, running: Service, suffix: str = "") -> dict[str, Any]:
    """The Job, once it is there."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [job for job in cluster.jobs() if job["metadata"]["name"].endswith(suffix)]
        return len(found) > 0

    until(look, "the Job", lambda: running.log)
    return found[-1]


def begin(cluster: KubernetesServer, job: dict[str, Any]) -> dict[str, Any]:
    """Kaniko starts."""
    pod = cluster.run_pod(cluster.start_pod(job))
    cluster.log(pod, ["INFO[0000] Building stage 'scratch'"])
    return pod


def destination(job: dict[str, Any]) -> ImageReference:
    """The image that the Job is to push."""
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    (image,) = [text.partition("=")[2] for text in arguments if text.startswith("--destination=")]
    return ImageReference.parse(image)


def push(job: dict[str, Any], architecture: str = "amd64") -> str:
    """Kaniko pushes an image to the Job's destination; returns its digest."""
    image = destination(job)
    api = f"http://{image.registry}/v2/{image.path}"
    config = json.dumps(
        {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    ).encode()
    place = request("POST", f"{api}/blobs/uploads/").headers["Location"]
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    assert request("PUT", f"{place}&digest={digest}", body=config).status == 201
    described = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": digest,
        "size": len(config),
    }
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []}
    ).encode()
    answer = request(
        "PUT", f"{api}/manifests/{image.tag}", body=manifest, headers={"Content-Type": MANIFEST}
    )
    assert answer.status == 201, answer.data
    return answer.headers["Docker-Content-Digest"]
