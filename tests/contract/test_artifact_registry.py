"""Google's registry: a real one, whose token server takes Google's access tokens as Artifact
Registry's does.
"""

import base64
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

import servers
import test_registry
from google_token_server import GoogleServer
from http_faults import FaultyProxy
from imagemill.clouds import gcp
from imagemill.errors import OperatorError, PermissionDenied, ServiceUnreachable, UserError
from imagemill.ports import Credentials, Registry
from imagemill.reference import ImageReference
from imagemill.registries import registry_for
from imagemill.registries.artifact_registry import ArtifactRegistry, _Place
from imagemill.registries.docker_config import DockerConfig
from token_server import TokenServer
from web import Request, Response, serve

LOCATION = "europe-west4"
RESOURCE = f"projects/a-project/locations/{LOCATION}/repositories/images"
UPLOAD, DOWNLOAD = (
    "artifactregistry.repositories.uploadArtifacts",
    "artifactregistry.repositories.downloadArtifacts",
)


@dataclass(frozen=True)
class Clock:
    """A clock that stands still, for one module."""

    now: float

    def time(self) -> float:
        return self.now


@dataclass
class RegistryTokens(TokenServer):
    """The token server of a registry that knows users by Google's access tokens."""

    google: GoogleServer | None = None

    def answer(self, request: Request) -> Response:
        assert self.google is not None
        basic = request.headers.get("authorization", "").removeprefix("Basic ")
        user, _, password = base64.b64decode(basic).decode().partition(":")
        if user != "oauth2accesstoken" or not self.google.accepts(password):
            error = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication failed"}]}
            return Response(401, {"Content-Type": "application/json"}, json.dumps(error).encode())
        answer = {
            "token": self.token("writer", request.query.get("scope", [])),
            "expires_in": self.expires_in,
        }
        return Response(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())


@pytest.fixture(scope="module")
def tokens(
    tmp_path_factory: pytest.TempPathFactory, google: GoogleServer
) -> Iterator[RegistryTokens]:
    server = RegistryTokens(tmp_path_factory.mktemp("google-tokens") / "tokens.pem", google=google)
    server.write_certificate()
    with serve(server.answer) as server.web:
        yield server


@dataclass(frozen=True)
class Site(test_registry.Site):
    """The registry, and its adapter."""

    def adapter(self) -> Registry:
        return ArtifactRegistry()

    def repository(self, prefix: str = "a-project/images") -> ImageReference:
        return super().repository(prefix)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, tokens: RegistryTokens) -> Iterator[str]:
    with servers.docker_registry(
        tmp_path_factory.mktemp("google-registry"), auth=tokens.registry_auth()
    ) as address:
        yield address


@pytest.fixture
def site(address: str, tokens: RegistryTokens, service_account: GoogleServer) -> Site:
    def authorization(path: str) -> Mapping[str, str]:
        return {
            "Authorization": f"Bearer {tokens.token('writer', [f'repository:{path}:pull,push'])}"
        }

    tokens.web.requests.clear()
    return Site(address, None, authorization)


class TestContract(test_registry.TestContract):
    def test_credentials_for_pushing_are_those_of_the_source(
        self, site: test_registry.Site
    ) -> None:
        found = site.adapter().credentials(site.repository())
        assert found is not None
        assert (found.username, found.identity_token) == ("oauth2accesstoken", "")
        assert found.password.startswith("ya29.")
        assert found.password not in repr(found)

    def test_tag_of_this_image_and_not_of_another_one_in_the_repository(
        self, site: test_registry.Site
    ) -> None:
        here, there = site.repository(), site.repository()
        site.pusher(there).image("v1")
        assert site.adapter().digest(here.with_tag("v1")) is None


class TestLogin:
    def test_google_gives_a_token_for_it_and_the_registry_one_for_that(
        self, site: Site, service_account: GoogleServer, tokens: RegistryTokens
    ) -> None:
        repository, adapter = site.repository(), site.adapter()
        digest = site.pusher(repository).image("v1")
        assert [adapter.digest(repository.with_tag("v1")) for _ in range(5)] == [digest] * 5
        assert service_account.requests == ["POST /token"]
        assert len(tokens.web.requests) == 1

    def test_token_that_google_revoked_is_a_permission_denied(
        self, site: Site, service_account: GoogleServer
    ) -> None:
        adapter = site.adapter()
        assert adapter.credentials(site.repository())
        service_account.revoke()
        with pytest.raises(PermissionDenied) as raised:
            adapter.digest(site.repository())
        assert raised.value.action == DOWNLOAD
        assert "ya29" not in str(raised.value)

    def test_credentials_say_when_they_end(self, site: Site) -> None:
        found = site.adapter().credentials(site.repository())
        assert found is not None
        assert found.expires is not None
        assert abs(found.expires - time.time() - 3600) < 60

    def test_credentials_are_kept_while_they_last(
        self, site: Site, service_account: GoogleServer
    ) -> None:
        adapter = site.adapter()
        assert len({adapter.credentials(site.repository()) for _ in range(5)}) == 1
        assert service_account.requests == ["POST /token"]

    @pytest.mark.parametrize(
        ("lifetime", "left"), [(3600, gcp.RENEWAL), (1200, gcp.RENEWAL), (300, 150)]
    )
    def test_credentials_are_renewed_before_they_end(
        self,
        site: Site,
        service_account: GoogleServer,
        monkeypatch: pytest.MonkeyPatch,
        lifetime: int,
        left: float,
    ) -> None:
        service_account.lifetime = lifetime
        adapter, repository, start = site.adapter(), site.repository(), time.time()
        first = adapter.credentials(repository)

        def at(moment: float) -> Credentials | None:
            monkeypatch.setattr(gcp, "time", Clock(start + moment))
            return adapter.credentials(repository)

        assert at(lifetime - left - 10) == first
        assert at(lifetime - left + 10) != first
        assert service_account.requests == ["POST /token"] * 2

    def test_registry_that_outlives_the_token_is_logged_in_to_anew(
        self,
        site: Site,
        service_account: GoogleServer,
        tokens: RegistryTokens,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What a build does that takes longer than its token lives."""
        monkeypatch.setattr(tokens, "expires_in", 0)  # each request logs in
        repository, adapter, start = site.repository(), site.adapter(), time.time()
        digest = site.pusher(repository).image("v1")
        assert adapter.digest(repository.with_tag("v1")) == digest
        service_account.revoke()
        monkeypatch.setattr(gcp, "time", Clock(start + 3600))
        assert adapter.digest(repository.with_tag("v1")) == digest
        assert service_account.requests == ["POST /token"] * 2

    def test_login_that_google_refuses_is_an_error_of_the_operator(
        self, site: Site, service_account: GoogleServer
    ) -> None:
        service_account.failures.append((400, {}, json.dumps({"error": "invalid_grant"})))
        with pytest.raises(
            OperatorError, match="does not accept the worker's credentials: invalid_grant"
        ):
            site.adapter().digest(site.repository())

    def test_google_that_fails_is_asked_once(
        self, site: Site, service_account: GoogleServer
    ) -> None:
        service_account.failures += [(503, {"Retry-After": "5"}, "")] * 9
        with pytest.raises(ServiceUnreachable) as raised:
            site.adapter().digest(site.repository())
        assert raised.value.retry_after == 5
        assert service_account.requests == ["POST /token"]


class TestRepositories:
    """What Artifact Registry says of repositories, in its own words, in place of what the other
    registry would say.
    """

    @pytest.fixture
    def proxy(self, address: str) -> Iterator[FaultyProxy]:
        with FaultyProxy(f"http://{address}") as proxy:
            yield proxy

    @pytest.fixture
    def image(self, proxy: FaultyProxy, site: Site) -> ImageReference:
        return ImageReference.parse(
            f"{proxy.url.removeprefix('http://')}/a-project/images/{uuid.uuid4().hex}:v1"
        )

    @staticmethod
    def says(proxy: FaultyProxy, status: int, code: str, message: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        proxy.fail_next(
            status,
            {"Content-Type": "application/json"},
            9,
            "^(GET|HEAD|PUT|DELETE) .*/manifests/",
            body,
        )

    def test_repository_that_is_there_is_ready(
        self, image: ImageReference, tokens: RegistryTokens
    ) -> None:
        ArtifactRegistry().prepare(image)
        assert [r.query["scope"] for r in tokens.web.requests] == [
            [f"repository:{image.path}:pull,push"]
        ]

    def test_missing_repository_is_told_with_the_command_that_makes_it(
        self, image: ImageReference, proxy: FaultyProxy
    ) -> None:
        self.says(proxy, 404, "NAME_UNKNOWN", 'Repository "images" not found')
        for attempt in (
            ArtifactRegistry().prepare,
            ArtifactRegistry().digest,
            ArtifactRegistry().delete,
        ):
            with pytest.raises(UserError) as raised:
                attempt(image)
            location = image.registry
            assert (
                raised.value.message
                == f"There is no repository images in {location} in the project a-project"
            )
            assert raised.value.hint == (
                "gcloud artifacts repositories create images --repository-format=docker"
                f" --location={location} --project=a-project"
            )

    @pytest.mark.parametrize(
        ("code", "message"),
        [("MANIFEST_UNKNOWN", 'Failed to fetch "v1"'), ("NAME_UNKNOWN", "Package not known")],
    )
    def test_missing_image_is_absent(
        self, image: ImageReference, proxy: FaultyProxy, code: str, message: str
    ) -> None:
        self.says(proxy, 404, code, message)
        assert ArtifactRegistry().digest(image) is None
        ArtifactRegistry().prepare(image)
        ArtifactRegistry().delete(image)

    @pytest.mark.parametrize(
        "message",
        [
            f'Permission "{UPLOAD}" denied on resource "{RESOURCE}" (or it may not exist)',
            f"Permission '{UPLOAD}' denied on resource (or it may not exist).",
            f'Unauthenticated request. Unauthenticated requests do not have permission "{UPLOAD}" on resource',
        ],
    )
    def test_missing_permission_is_named_with_the_line_that_grants_it(
        self, image: ImageReference, proxy: FaultyProxy, message: str
    ) -> None:
        self.says(proxy, 403, "DENIED", message)
        with pytest.raises(PermissionDenied) as raised:
            ArtifactRegistry().prepare(image)
        error = raised.value
        assert error.action == UPLOAD
        assert (
            error.resource == f"projects/a-project/locations/{image.registry}/repositories/images"
        )
        assert f"403 DENIED {message[:50]}" in error.message
        assert f"a role that has {UPLOAD}" in error.hint

    def test_permission_that_nobody_names_is_the_one_that_it_takes(
        self, image: ImageReference, proxy: FaultyProxy
    ) -> None:
        self.says(proxy, 403, "DENIED", "no")
        with pytest.raises(PermissionDenied) as raised:
            ArtifactRegistry().digest(image)
        assert raised.value.action == DOWNLOAD
        assert DOWNLOAD in raised.value.hint
        with pytest.raises(PermissionDenied) as raised:
            ArtifactRegistry().delete(image)
        assert raised.value.action == "artifactregistry.tags.delete"

    @pytest.mark.parametrize(
        "path", ["project", "project/repository", "example.com/project/repository"]
    )
    def test_reference_that_names_no_image_is_refused(self, path: str) -> None:
        reference = ImageReference.parse(f"{LOCATION}-docker.pkg.dev/{path}")
        with pytest.raises(UserError, match="names no image in a repository") as raised:
            ArtifactRegistry().digest(reference)
        assert raised.value.hint == f"write {LOCATION}-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE"


def test_project_of_a_domain_is_named_as_google_does() -> None:
    image = ImageReference.parse(f"{LOCATION}-docker.pkg.dev/example.com/project/images/a/b:v1")
    assert _Place.of(image) == _Place(LOCATION, "example.com:project", "images")


def test_hosts_of_artifact_registry_have_the_adapter(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    config = DockerConfig(tmp_path_factory.mktemp("config"))
    for host in (f"{LOCATION}-docker.pkg.dev", "us-docker.pkg.dev"):
        image = ImageReference.parse(f"{host}/project/repository/image")
        assert isinstance(registry_for(image, docker_config=config), ArtifactRegistry)


def test_making_the_adapter_asks_nobody(
    fresh_google: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/is/not/there")
    ArtifactRegistry()
