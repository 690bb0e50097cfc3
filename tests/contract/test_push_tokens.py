"""Tokens that may push to one repository and do nothing else: those of a real registry's server of
tokens, and who gets none.
"""

import base64
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from urllib3 import request

import servers
from builds import until
from credentials import Always
from ecr_sessions import ecr_sessions
from imagemill.builders.kaniko.api import SECRETS
from imagemill.errors import PermissionDenied
from imagemill.ports import Credentials, Registry
from imagemill.reference import ImageReference
from imagemill.registries.artifact_registry import ArtifactRegistry
from imagemill.registries.ecr import EcrRegistry
from imagemill.registries.oci import LASTING, OciRegistry
from images import Pusher
from kaniko_builds import DIGEST, DOCKERFILE, PlayedCluster, container, played_cluster
from token_server import TokenServer, token_server

ROLE = "arn:aws:iam::123456789012:role/imagemill/push"
WRITER = Credentials("writer", "write:me")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    with token_server(tmp_path_factory.mktemp("tokens")) as server:
        server.expires_in = 3600
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, tokens: TokenServer) -> Iterator[str]:
    """The address of a registry that asks for tokens."""
    folder = tmp_path_factory.mktemp("guarded")
    with servers.docker_registry(folder, auth=tokens.registry_auth()) as address:
        yield address


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[PlayedCluster]:
    with played_cluster(tmp_path) as played:
        yield played


def registry(found: Credentials | None = WRITER) -> Registry:
    return OciRegistry(Always(found))


def bearer(found: Credentials | None) -> dict[str, str]:
    assert found is not None
    return {"Authorization": f"Bearer {found.registry_token}"}


def may(address: str, path: str, headers: dict[str, str], method: str = "POST") -> bool:
    """Whether one may begin a push to a repository, or, with GET, read its tags."""
    what = "blobs/uploads/" if method == "POST" else "tags/list"
    answer = request(method, f"http://{address}/v2/{path}/{what}", headers=headers)
    return answer.status not in (401, 403)


def test_a_token_pushes_to_its_repository_reads_the_base_images_and_does_nothing_else(
    guarded: str,
) -> None:
    image = ImageReference.parse(f"{guarded}/team-a/app:v1")
    base = ImageReference.parse(f"{guarded}/team-b/base:v1")
    found = registry().push_token(image, pulled=[base])
    headers = bearer(found)
    assert Pusher(guarded, "team-a/app", headers).image("v1")
    assert may(guarded, "team-b/base", headers, "GET")
    assert not may(guarded, "team-b/base", headers)
    assert not may(guarded, "team-b/other", headers, "GET")
    assert not may(guarded, "team-b/other", headers)
    assert request("GET", f"http://{guarded}/v2/_catalog", headers=headers).status == 401
    assert found is not None
    assert (found.username, found.password, found.identity_token) == ("", "", "")
    assert found.expires == pytest.approx(time.time() + 3600, abs=60)
    assert found.registry_token not in repr(found)
    assert found.is_narrow  # so that it is renewed while half of it is left


def test_a_token_that_a_push_would_outlive_is_not_taken(
    guarded: str, tokens: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = ImageReference.parse(f"{guarded}/team-a/app:v1")
    for told in (None, 300, LASTING - 1):
        monkeypatch.setattr(tokens, "expires_in", told)
        assert registry().push_token(image) is None


def test_who_has_no_server_of_tokens_or_no_login_gets_none(guarded: str, tmp_path: Path) -> None:
    image = ImageReference.parse(f"{guarded}/team-a/app:v1")
    assert registry(None).push_token(image) is None
    assert registry(Credentials("", "", registry_token="own")).push_token(image) is None
    users = tmp_path / "htpasswd"
    users.write_bytes(
        subprocess.check_output([servers.program("htpasswd"), "-Bbn", "writer", "write:me"])
    )
    with servers.docker_registry(tmp_path / "passwords", auth=users) as address:
        assert registry().push_token(ImageReference.parse(f"{address}/a/b")) is None
    assert ArtifactRegistry().push_token(image) is None  # type: ignore[func-returns-value]


def test_a_wrong_login_is_told(guarded: str) -> None:
    wrong = registry(Credentials("writer", "wrong"))
    with pytest.raises(PermissionDenied):
        wrong.push_token(ImageReference.parse(f"{guarded}/team-a/app:v1"))


# in a build pod


def logins(cluster: PlayedCluster) -> dict[str, dict[str, str]]:
    """What the pod's own config.json has."""
    assert until(lambda: len(cluster.objects(SECRETS)) == 1)
    data = base64.b64decode(cluster.objects(SECRETS)[0]["data"][".dockerconfigjson"])
    found: dict[str, dict[str, str]] = json.loads(data)["auths"]
    return found


def test_a_pod_has_the_token_and_no_password(cluster: PlayedCluster, guarded: str) -> None:
    build = cluster.build(destination=f"{guarded}/team-a/app", registry=registry())
    job = cluster.job()
    found = logins(cluster)
    assert found.keys() == {guarded}
    assert found[guarded].keys() == {"registrytoken"}
    headers = {"Authorization": f"Bearer {found[guarded]['registrytoken']}"}
    assert may(guarded, "team-a/app", headers)
    assert not may(guarded, "team-b/app", headers)
    assert found[guarded]["registrytoken"] not in json.dumps(job)
    cluster.succeed()
    assert build.result() == DIGEST


@pytest.mark.parametrize("role", [ROLE, None])
def test_a_pod_at_ecr_has_the_login_of_a_roles_session_where_the_config_names_one(
    cluster: PlayedCluster, ecr_keys: pytest.MonkeyPatch, moto_server: str, role: str | None
) -> None:
    host = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    with ecr_sessions(ecr_keys, moto_server) as amazon:
        build = cluster.build(
            destination=f"{host}/team-a/app", registry=EcrRegistry(), push_role=role
        )
        cluster.job()
        user, _, key = base64.b64decode(logins(cluster)[host]["auth"]).decode().partition(":")
        cluster.succeed()
        assert build.result() == DIGEST
    assert user == "AWS"
    assert (key == "testing") is (role is None)  # the worker's own
    sessions = [each.form for each in amazon.requests if b"Action=AssumeRole" in each.body]
    assert {each["RoleSessionName"][0] for each in sessions} == (
        {"imagemill-build-1"} if role else set()
    )


@pytest.mark.parametrize("argument", ["--cache=true", "--registry-mirror=m.example.com"])
def test_a_pod_that_asks_for_more_than_its_dockerfile_says_has_the_login(
    cluster: PlayedCluster, guarded: str, argument: str
) -> None:
    build = cluster.build(
        destination=f"{guarded}/team-a/app",
        registry=registry(),
        kaniko_config=container(args=[argument]),
    )
    cluster.job()
    assert logins(cluster)[guarded].keys() == {"auth"}
    cluster.succeed()
    assert build.result() == DIGEST


def test_a_pod_logs_in_where_its_dockerfiles_images_are_and_nowhere_else(
    cluster: PlayedCluster, guarded: str, tmp_path: Path
) -> None:
    """The worker's docker config has logins for more registries than the build needs."""
    auth = base64.b64encode(b"ann:s3cr3t").decode()
    others = ("docker.io", "ghcr.io", "quay.io", f"{guarded}/other")
    config = {"auths": {host: {"auth": auth} for host in others}}
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing/config.json").write_text(json.dumps(config))
    assert b"FROM python" in DOCKERFILE
    build = cluster.build(
        uuid.uuid4().hex * 2, destination=f"{guarded}/team-a/app", registry=registry()
    )
    cluster.job()
    assert logins(cluster).keys() == {guarded, "https://index.docker.io/v1/"}
    assert logins(cluster)["https://index.docker.io/v1/"] == {"auth": auth}
    cluster.succeed()
    assert build.result() == DIGEST


def test_a_pod_gets_the_authorities_of_the_operator(
    cluster: PlayedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "company.pem").write_text("the company's")
    monkeypatch.setenv("IMAGEMILL_AUTHORITIES", str(tmp_path / "company.pem"))
    build = cluster.build()
    cluster.job()
    assert until(lambda: len(cluster.objects(SECRETS)) == 1)
    data = cluster.objects(SECRETS)[0]["data"]
    assert base64.b64decode(data["authorities.pem"]) == b"the company's"
    cluster.succeed()
    assert build.result() == DIGEST
    assert cluster.is_empty()
