"""Amazon's public registry: anybody reads, and who has credentials of AWS pushes. No server with its
API is to be had: a small one gives its documented answers, to Amazon's own SDK.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from aws_fixtures import use_keys
from imagemill.clouds import aws
from imagemill.errors import PermissionDenied
from imagemill.reference import ImageReference
from imagemill.registries import registry_for
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.ecr_public import EcrPublicRegistry
from images import OCI_MANIFEST
from web import Request, Response, Web, serve

LOGIN = base64.b64encode(b"AWS:password").decode()
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST}).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


def amazon(request: Request) -> Response:
    """https://docs.aws.amazon.com/AmazonECRPublic/latest/APIReference/Welcome.html, and its
    registry, where `hidden` may be seen by its owner alone.
    """
    action = request.headers.get("x-amz-target", "").rpartition(".")[2]
    if action == "GetAuthorizationToken":
        data = {"authorizationToken": LOGIN, "expiresAt": 4_000_000_000}
        return Response(body=json.dumps({"authorizationData": data}).encode())
    if action == "CreateRepository":
        body = {"__type": "RepositoryAlreadyExistsException"}
        return Response(400, body=json.dumps(body).encode())
    is_owner = request.headers.get("authorization") == f"Basic {LOGIN}"
    if not is_owner and (request.method == "PUT" or "hidden" in request.path):
        return Response(401, {"WWW-Authenticate": 'Basic realm="x"'})
    if request.method == "PUT":
        return Response(201, {"Docker-Content-Digest": DIGEST})
    if request.path.endswith("absent") or "hidden" in request.path:
        return Response(404, body=b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
    headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": DIGEST}
    return Response(200, headers, MANIFEST)


@pytest.fixture
def web(aws_environment: pytest.MonkeyPatch) -> Iterator[Web]:
    with serve(amazon) as web:
        aws_environment.setenv("AWS_ENDPOINT_URL_ECR_PUBLIC", f"http://{web.address}")
        aws.forget()
        yield web


def image(web: Web, name: str) -> ImageReference:
    return ImageReference.parse(f"{web.address}/alias/{name}")


def test_anybody_reads_without_credentials_of_aws(web: Web, tmp_path: Path) -> None:
    registry = EcrPublicRegistry(DockerConfig(tmp_path))
    assert registry.digest(image(web, "app:v1")) == DIGEST
    assert registry.digest(image(web, "app:absent")) is None
    with pytest.raises(PermissionDenied):  # and not that there are no credentials of AWS
        registry.digest(image(web, "hidden:v1"))
    assert not [each for each in web.requests if "x-amz-target" in each.headers]


def test_owner_pushes_with_the_login_of_the_api(
    web: Web, aws_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_keys(aws_environment, "testing", "testing")
    registry = EcrPublicRegistry(DockerConfig(tmp_path))
    assert registry.digest(image(web, "hidden:v1")) is None
    registry.prepare(image(web, "app"))
    (made,) = [
        each
        for each in web.requests
        if each.headers.get("x-amz-target", "").endswith("CreateRepository")
    ]
    assert json.loads(made.body)["repositoryName"] == "app"
    assert "us-east-1" in made.headers["authorization"]
    credentials = registry.credentials(image(web, "app"))
    assert credentials is not None
    assert (credentials.username, credentials.password) == ("AWS", "password")
    registry.tag(image(web, "app").with_digest(DIGEST), ("absent",))
    assert len(web.asked("PUT", "/v2/alias/app/manifests/absent")) == 2  # once without the login


def test_login_of_dockers_config_is_used_first(web: Web, tmp_path: Path) -> None:
    auths = {"auths": {web.address: {"auth": LOGIN}}}
    (tmp_path / "config.json").write_text(json.dumps(auths))
    registry = EcrPublicRegistry(DockerConfig(tmp_path))
    registry.prepare(image(web, "app"))
    assert registry.digest(image(web, "hidden:v1")) is None
    assert not [each for each in web.requests if "x-amz-target" in each.headers]


def test_it_is_the_registry_of_its_host(tmp_path: Path) -> None:
    reference = ImageReference.parse("public.ecr.aws/alias/app:v1")
    found = registry_for(reference, docker_config=DockerConfig(tmp_path))
    assert isinstance(found, EcrPublicRegistry)
