"""What every registry adapter must do, on a real registry: open, with passwords, and with a token
server.
"""

import hashlib
import io
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

import servers
from credentials import Always
from imagemill.errors import PermissionDenied, ServiceUnreachable, TransientError
from imagemill.ports import Credentials, Registry
from imagemill.reference import ImageReference
from imagemill.registries.blobs import Blobs
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import OciRegistry
from images import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Pusher
from token_server import PASSWORDS, TokenServer, token_server

WRITER = Credentials("writer", PASSWORDS["writer"])
READER = Credentials("reader", PASSWORDS["reader"])
ABSENT = f"sha256:{'0' * 64}"


@dataclass(frozen=True)
class Site:
    """A registry to run the contract on, and what is needed to write to it behind the adapter's
    back.
    """

    address: str
    found: Credentials | None
    authorization: Callable[[str], Mapping[str, str]]

    def adapter(self) -> Registry:
        return OciRegistry(Always(self.found))

    def repository(self, prefix: str = "test") -> ImageReference:
        """A repository that no other test has."""
        return ImageReference.parse(f"{self.address}/{prefix}/{uuid.uuid4().hex}")

    def pusher(self, repository: ImageReference) -> Pusher:
        return Pusher(self.address, repository.path, self.authorization(repository.path))


@pytest.fixture(scope="module")
def passwords(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("passwords")
    htpasswd = folder / "htpasswd"
    entry = [servers.program("htpasswd"), "-Bbn", WRITER.username, WRITER.password]
    htpasswd.write_text(subprocess.run(entry, capture_output=True, text=True, check=True).stdout)
    with servers.docker_registry(folder, auth=htpasswd) as address:
        yield Site(address, WRITER, lambda path: {"Authorization": "Basic d3JpdGVyOndyaXRlOm1l"})


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    with token_server(tmp_path_factory.mktemp("tokens")) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, tokens: TokenServer) -> Iterator[Site]:
    """A registry that asks for tokens."""

    def authorization(path: str) -> Mapping[str, str]:
        return {
            "Authorization": f"Bearer {tokens.token('writer', [f'repository:{path}:pull,push'])}"
        }

    with servers.docker_registry(
        tmp_path_factory.mktemp("guarded"), auth=tokens.registry_auth()
    ) as address:
        yield Site(address, WRITER, authorization)


@pytest.fixture(params=["open", "passwords", "tokens"])
def site(request: pytest.FixtureRequest) -> Site:
    if request.param == "open":
        return Site(request.getfixturevalue("registry"), None, lambda path: {})
    found: Site = request.getfixturevalue(
        {"passwords": "passwords", "tokens": "guarded"}[request.param]
    )
    return found


class TestContract:
    @pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
    def test_digest_of_a_tagged_image(self, site: Site, media_type: str) -> None:
        repository = site.repository()
        digest = site.pusher(repository).image("v1", media_type)
        assert site.adapter().digest(repository.with_tag("v1")) == digest

    @pytest.mark.parametrize(
        ("list_type", "image_type"), [(OCI_INDEX, OCI_MANIFEST), (DOCKER_LIST, DOCKER_MANIFEST)]
    )
    def test_digest_of_a_manifest_list_is_that_of_the_list(
        self, site: Site, list_type: str, image_type: str
    ) -> None:
        repository = site.repository()
        pusher = site.pusher(repository)
        image = pusher.image("image", image_type)
        digest = pusher.index("v1", list_type, image, image_type)
        assert digest != image
        assert site.adapter().digest(repository.with_tag("v1")) == digest

    def test_a_blob_is_mounted_from_another_repository(self, site: Site) -> None:
        blobs, content = Blobs(site.adapter()), uuid.uuid4().bytes
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        source, target = site.repository(), site.repository()
        blobs.push(source, digest, io.BytesIO(content), len(content))
        assert not blobs.has(target, digest)
        assert not blobs.mount(target, ABSENT, source)
        assert blobs.mount(target, digest, source)
        assert blobs.read(target, digest) == content

    def test_digest_of_a_digest_is_the_digest(self, site: Site) -> None:
        repository = site.repository()
        digest = site.pusher(repository).image("v1")
        assert site.adapter().digest(repository.with_digest(digest)) == digest

    def test_digest_wins_over_the_tag_in_a_reference(self, site: Site) -> None:
        repository = site.repository()
        digest = site.pusher(repository).image("v1")
        assert site.adapter().digest(repository.with_tag("gone").with_digest(digest)) == digest

    def test_reference_without_tag_and_digest_is_the_latest(self, site: Site) -> None:
        repository = site.repository()
        digest = site.pusher(repository).image("latest")
        assert site.adapter().digest(repository) == digest

    def test_absent_tag_absent_digest_and_absent_repository_are_none(self, site: Site) -> None:
        repository = site.repository()
        site.pusher(repository).image("v1")
        adapter = site.adapter()
        assert adapter.digest(repository.with_tag("v2")) is None
        assert adapter.digest(repository.with_digest(ABSENT)) is None
        assert adapter.digest(site.repository().with_tag("v1")) is None

    @pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
    def test_tag_gives_an_image_more_tags(self, site: Site, media_type: str) -> None:
        repository = site.repository()
        digest = site.pusher(repository).image("v1", media_type)
        adapter = site.adapter()
        adapter.tag(repository.with_digest(digest), ("v1.0", "stable"))
        assert adapter.digest(repository.with_tag("v1.0")) == digest
        assert adapter.digest(repository.with_tag("stable")) == digest

    def test_tag_gives_a_manifest_list_more_tags(self, site: Site) -> None:
        repository = site.repository()
        pusher = site.pusher(repository)
        digest = pusher.index(
            "v1", DOCKER_LIST, pusher.image("image", DOCKER_MANIFEST), DOCKER_MANIFEST
        )
        adapter = site.adapter()
        adapter.tag(repository.with_digest(digest), ("stable",))
        assert adapter.digest(repository.with_tag("stable")) == digest

    def test_tag_moves_a_tag_from_another_image(self, site: Site) -> None:
        repository = site.repository()
        pusher = site.pusher(repository)
        old, new = pusher.image("stable", label="old"), pusher.image("v2", label="new")
        adapter = site.adapter()
        assert old != new
        adapter.tag(repository.with_digest(new), ("stable",))
        assert adapter.digest(repository.with_tag("stable")) == new

    def test_tagging_an_image_that_is_gone_asks_for_another_build(self, site: Site) -> None:
        repository = site.repository()
        site.pusher(repository).image("v1")
        with pytest.raises(TransientError, match="not in the registry any more") as raised:
            site.adapter().tag(repository.with_digest(ABSENT), ("v2",))
        assert raised.value.hint == "build it again"

    def test_credentials_for_pushing_are_those_of_the_source(self, site: Site) -> None:
        assert site.adapter().credentials(site.repository()) == site.found

    def test_threads_share_an_adapter(self, site: Site) -> None:
        repository = site.repository()
        digest = site.pusher(repository).image("v1")
        adapter = site.adapter()
        with ThreadPoolExecutor(8) as threads:
            found = set(threads.map(adapter.digest, [repository.with_tag("v1")] * 80))
        assert found == {digest}


class TestPasswords:
    @pytest.mark.parametrize(
        "found",
        [None, Credentials("writer", "not-this"), Credentials("", "", "token")],
        ids=["none", "wrong", "identity"],
    )
    def test_missing_or_wrong_ones_are_a_permission_denied(
        self, passwords: Site, found: Credentials | None
    ) -> None:
        repository = passwords.repository()
        with pytest.raises(PermissionDenied) as raised:
            OciRegistry(Always(found)).digest(repository.with_tag("v1"))
        error = raised.value
        assert f"No permission to pull from {repository.repository}" in error.message
        assert f"credentials for {passwords.address} that may pull {repository.path}" in error.hint
        assert "not-this" not in str(error)

    def test_docker_reads_the_private_copy_of_its_config(
        self, passwords: Site, engine: str, docker_cli: str, tmp_path: Path
    ) -> None:
        (tmp_path / "config.json").write_text('{"credsStore": "that-is-not-installed"}')
        copy = DockerConfig(tmp_path).private_copy(passwords.address, WRITER)
        (tmp_path / "config.json").write_text(json.dumps(copy))
        repository = passwords.repository()
        command = [
            docker_cli,
            "--config",
            str(tmp_path),
            "--host",
            engine,
            "pull",
            f"{repository}:v1",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (
            f"manifest for {repository}:v1 not found" in done.stderr
        )  # and not that it may not ask


class TestTokens:
    def test_scope_is_asked_for_as_the_action_needs_it(
        self, guarded: Site, tokens: TokenServer
    ) -> None:
        repository = guarded.repository()
        digest = guarded.pusher(repository).image("v1")
        tokens.web.requests.clear()
        adapter = guarded.adapter()
        assert adapter.digest(repository.with_tag("v1")) == digest
        assert [r.query["scope"] for r in tokens.web.requests] == [
            [f"repository:{repository.path}:pull"]
        ]
        tokens.web.requests.clear()
        adapter.tag(repository.with_digest(digest), ("v2", "v3"))
        assert [r.query["scope"] for r in tokens.web.requests] == [
            [f"repository:{repository.path}:pull,push"]
        ]

    def test_token_is_kept_while_it_is_valid(self, guarded: Site, tokens: TokenServer) -> None:
        repository = guarded.repository()
        digest = guarded.pusher(repository).image("v1")
        adapter = guarded.adapter()
        tokens.web.requests.clear()
        assert [adapter.digest(repository.with_tag("v1")) for _ in range(5)] == [digest] * 5
        assert len(tokens.web.requests) == 1

    def test_token_without_a_lifetime_is_kept_too(
        self, guarded: Site, tokens: TokenServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tokens, "expires_in", None)  # 60 seconds, says the specification
        adapter, repository = guarded.adapter(), guarded.repository()
        tokens.web.requests.clear()
        assert [adapter.digest(repository) for _ in range(3)] == [None] * 3
        assert len(tokens.web.requests) == 1

    def test_token_that_has_expired_is_asked_for_again(
        self, guarded: Site, tokens: TokenServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tokens, "expires_in", 0)
        repository = guarded.repository()
        digest = guarded.pusher(repository).image("v1")
        adapter = guarded.adapter()
        tokens.web.requests.clear()
        assert [adapter.digest(repository.with_tag("v1")) for _ in range(3)] == [digest] * 3
        assert len(tokens.web.requests) == 3

    def test_tokens_of_two_repositories_are_kept_apart(
        self, guarded: Site, tokens: TokenServer
    ) -> None:
        adapter, repositories = guarded.adapter(), [guarded.repository(), guarded.repository()]
        tokens.web.requests.clear()
        for repository in repositories * 2:
            assert adapter.digest(repository.with_tag("v1")) is None
        assert [r.query["scope"] for r in tokens.web.requests] == [
            [f"repository:{r.path}:pull"] for r in repositories
        ]

    def test_identity_token_is_exchanged(self, guarded: Site, tokens: TokenServer) -> None:
        repository = guarded.repository()
        digest = guarded.pusher(repository).image("v1")
        adapter = OciRegistry(Always(Credentials("", "", "identity-of-writer")))
        tokens.web.requests.clear()
        adapter.tag(repository.with_digest(digest), ("v2",))
        assert adapter.digest(repository.with_tag("v2")) == digest
        assert {r.method for r in tokens.web.requests} == {"POST"}
        assert all("identity-of-writer" not in r.path for r in tokens.web.requests)

    def test_public_repository_is_read_anonymously(self, guarded: Site) -> None:
        repository = guarded.repository("public")
        digest = guarded.pusher(repository).image("v1")
        assert OciRegistry(Always(None)).digest(repository.with_tag("v1")) == digest

    @pytest.mark.parametrize(
        "found",
        [None, Credentials("writer", "not-this"), Credentials("", "", "not-this")],
        ids=["none", "wrong password", "wrong identity token"],
    )
    def test_reading_without_permission_is_denied_and_never_absent(
        self, guarded: Site, found: Credentials | None
    ) -> None:
        repository = guarded.repository()
        with pytest.raises(PermissionDenied) as raised:
            OciRegistry(Always(found)).digest(repository.with_tag("v1"))
        assert f"No permission to pull from {repository.repository}" in raised.value.message
        assert "not-this" not in str(raised.value)

    def test_writing_without_permission_is_denied(self, guarded: Site) -> None:
        repository = guarded.repository()
        digest = guarded.pusher(repository).image("v1")
        adapter = OciRegistry(Always(READER))
        assert adapter.digest(repository.with_tag("v1")) == digest
        with pytest.raises(PermissionDenied) as raised:
            adapter.tag(repository.with_digest(digest), ("v2",))
        assert f"No permission to push to {repository.repository}" in raised.value.message
        assert f"may pull,push {repository.path}" in raised.value.hint


def test_a_registry_that_went_away_is_neither_absent_nor_denied(tmp_path: Path) -> None:
    adapter = OciRegistry(Always(None))
    with servers.registry(tmp_path) as server:
        repository = ImageReference.parse(f"{server.url}/a/b:v1")
        digest = Pusher(server.url, "a/b").image("v1")
        assert adapter.digest(repository) == digest
        server.kill()
        with pytest.raises(ServiceUnreachable, match="cannot be reached") as raised:
            adapter.digest(repository)
        assert raised.value.hint
        server.start()
        assert adapter.digest(repository) == digest
