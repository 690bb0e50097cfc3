"""Azure container registries: the whole way from the credential chain to the tag, and what they say
when they refuse.

Behind the exchange of tokens, which is a server of ours, lies a real registry that checks the
tokens.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import servers
from azure_token_server import (
    CLIENT,
    FEDERATED_TOKEN,
    MACHINE,
    NOBODY,
    OBJECT,
    TENANT,
    Acr,
    Entra,
    Response,
    acr,
    entra,
)
from credentials import Always
from imagemill.clouds import azure
from imagemill.errors import OperatorError, PermissionDenied, ServiceUnreachable, TransientError
from imagemill.ports import Credentials, Registry
from imagemill.reference import ImageReference
from imagemill.registries.acr import AzureRegistry
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import OciRegistry
from test_registry import Site
from test_registry import TestContract as Contract

ALL = {"pull", "push", "delete"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acr]:
    folder = tmp_path_factory.mktemp("acr")
    with (
        acr(folder) as front,
        servers.docker_registry(folder, auth=front.registry_auth()) as address,
    ):
        front.register(address, folder / "registry")
        yield front


@pytest.fixture
def front(running: Acr, azure_client: None) -> Iterator[Acr]:
    """A registry of Azure; the client of the tenant may do everything there."""
    running.rights = {OBJECT: set(ALL)}
    running.requests.clear()
    yield running
    running.fault, running.lifetime = None, 3 * 60 * 60


@dataclass(frozen=True)
class AzureSite(Site):
    """A registry of Azure, as the contract of registries needs it; an image is pushed with what the
    adapter gives.
    """

    registry: AzureRegistry

    def adapter(self) -> Registry:
        return self.registry


def adapter(front: Acr) -> AzureRegistry:
    return AzureRegistry(DockerConfig(Path("/nonexistent")), frozenset({front.address}))


@pytest.fixture
def site(front: Acr) -> Site:
    registry = adapter(front)

    def authorization(path: str) -> Mapping[str, str]:
        repository = ImageReference(front.address, path)
        return {"Authorization": f"Bearer {registry._tokens.access_token(repository, 'pull,push')}"}

    return AzureSite(
        front.address,
        registry.credentials(ImageReference(front.address, "any")),
        authorization,
        registry,
    )


class TestAzure(Contract):
    """The contract of all registries."""


def test_refresh_token_is_what_a_push_logs_in_with_and_when_it_ends(site: Site, front: Acr) -> None:
    before = time.time()
    found = site.adapter().credentials(site.repository())
    assert found is not None
    assert found.username == NOBODY
    assert found.password == found.identity_token
    assert found.expires is not None
    assert before + front.lifetime - 10 < found.expires <= time.time() + front.lifetime
    [exchange] = front.asked("/oauth2/exchange")
    form = {name: values for name, values in exchange.fields.items() if name != "access_token"}
    assert form == {"grant_type": ["access_token"], "service": [front.address], "tenant": [TENANT]}
    assert azure.claims(exchange.field("access_token"))["oid"] == OBJECT


def test_a_push_token_is_for_its_repository_alone(front: Acr) -> None:
    registry = adapter(front)
    found = registry.push_token(ImageReference(front.address, "team-a/app"))
    assert found is not None
    assert (found.username, found.password, found.identity_token) == ("", "", "")
    assert found.expires is not None
    access = azure.claims(found.registry_token)["access"]
    assert [(each["name"], set(each["actions"])) for each in access] == [
        ("team-a/app", {"pull", "push"})
    ]


def test_password_and_identity_token_are_both_good_for_a_login(front: Acr) -> None:
    """Docker uses the identity token, others the user and the password."""
    found = adapter(front).credentials(ImageReference(front.address, "any"))
    assert found is not None

    for login in (
        Credentials(found.username, found.password),
        Credentials("", "", found.identity_token),
    ):
        registry = OciRegistry(Always(login), frozenset({front.address}))
        assert registry.digest(ImageReference(front.address, "absent", "v1")) is None


def test_credentials_are_kept_while_they_are_good_for_a_quarter_of_an_hour(front: Acr) -> None:
    registry, repository = adapter(front), ImageReference(front.address, "any")
    assert registry.credentials(repository) == registry.credentials(repository)
    assert len(front.asked("/oauth2/exchange")) == 1


@pytest.mark.parametrize("lifetime", [14 * 60, 3])
def test_credentials_that_end_soon_are_renewed(front: Acr, lifetime: int) -> None:
    front.lifetime = lifetime
    registry, repository = adapter(front), ImageReference(front.address, "any")
    assert registry.credentials(repository) != registry.credentials(repository)
    assert len(front.asked("/oauth2/exchange")) == 2


def test_deleted_tag_leaves_the_image_and_its_other_tags(site: Site) -> None:
    repository = site.repository()
    digest = site.pusher(repository).image("v1")
    registry = site.adapter()
    registry.tag(repository.with_digest(digest), ("v2",))
    registry.delete(repository.with_tag("v1"))
    assert registry.digest(repository.with_tag("v1")) is None
    assert registry.digest(repository.with_tag("v2")) == digest
    assert registry.digest(repository.with_digest(digest)) == digest


def test_deleting_a_tag_that_is_not_there_is_fine(site: Site) -> None:
    repository = site.repository()
    site.adapter().delete(repository.with_tag("v1"))
    site.pusher(repository).image("v1")
    site.adapter().delete(repository.with_tag("v2"))


def test_deleting_without_a_tag_is_a_bug(site: Site) -> None:
    with pytest.raises(ValueError, match="has no tag"):
        site.adapter().delete(site.repository())


def test_nothing_is_prepared(front: Acr) -> None:
    adapter(front).prepare(ImageReference(front.address, "any"))
    assert front.requests == []


# --- Other sources of the chain ---


def test_workload_identity_leads_to_the_registry(
    front: Acr, azure_tokens: Entra, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(FEDERATED_TOKEN)
    monkeypatch.delenv("AZURE_CLIENT_SECRET")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    assert adapter(front).digest(ImageReference(front.address, "absent", "v1")) is None
    assert azure_tokens.asked("/token")[0].field("client_assertion") == FEDERATED_TOKEN


def test_managed_identity_leads_to_the_registry(
    front: Acr, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    with entra(None) as metadata:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{metadata.port}")
        front.rights = {MACHINE: {"pull"}}
        assert adapter(front).digest(ImageReference(front.address, "absent", "v1")) is None
        assert {request.field("resource") for request in metadata.requests} == {
            "https://containerregistry.azure.net"
        }


def test_no_credentials_at_all_are_told_with_the_sources(
    front: Acr, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    with pytest.raises(OperatorError, match="No Azure credentials were found"):
        adapter(front).digest(ImageReference(front.address, "absent", "v1"))
    assert front.asked("/oauth2/exchange") == []


# --- Refusals ---


Attempt = Callable[[AzureRegistry, ImageReference], object]


def test_identity_without_a_role_is_told_to_get_one(front: Acr) -> None:
    front.rights = {}
    repository = ImageReference(front.address, "team/model")
    attempts: list[tuple[Attempt, str]] = [
        (lambda registry, image: registry.digest(image.with_tag("v1")), "AcrPull"),
        (
            lambda registry, image: registry.tag(image.with_digest(f"sha256:{'0' * 64}"), ("v1",)),
            "AcrPush",
        ),
        (lambda registry, image: registry.credentials(image), "AcrPush"),
    ]
    for attempt, role in attempts:
        with pytest.raises(PermissionDenied) as raised:
            attempt(adapter(front), repository)
        error = raised.value
        assert error.message.startswith(
            f"{front.address} gives the worker no token: 401 UNAUTHORIZED authentication"
        )
        assert error.hint.startswith(
            f"give the worker's identity the role {role} on the registry {front.address}"
        )
        assert error.resource == front.address
        assert error.action.startswith("Microsoft.ContainerRegistry/registries/")


def test_identity_that_may_only_read_is_told_that_it_may_not_push_or_delete(
    site: Site, front: Acr
) -> None:
    repository = site.repository()
    digest = site.pusher(repository).image("v1")
    front.rights = {OBJECT: {"pull"}}
    registry = adapter(front)
    assert registry.digest(repository.with_tag("v1")) == digest
    with pytest.raises(PermissionDenied) as raised:
        registry.tag(repository.with_digest(digest), ("v2",))
    assert raised.value.action == "Microsoft.ContainerRegistry/registries/push/write"
    with pytest.raises(PermissionDenied) as raised:
        registry.delete(repository.with_tag("v1"))
    assert raised.value.action == "Microsoft.ContainerRegistry/registries/artifacts/delete"
    assert "the role AcrDelete" in raised.value.hint
    assert registry.digest(repository.with_tag("v1")) == digest


def test_push_role_does_not_suffice_to_delete(site: Site, front: Acr) -> None:
    repository = site.repository()
    digest = site.pusher(repository).image("v1")
    front.rights = {OBJECT: {"pull", "push"}}
    with pytest.raises(PermissionDenied, match="does not let the worker delete"):
        adapter(front).delete(repository.with_tag("v1"))
    assert site.adapter().digest(repository.with_tag("v1")) == digest


def test_network_rules_of_the_registry_are_told_in_its_words(front: Acr) -> None:
    words = "client with IP '203.0.113.7' is not allowed access. Refer https://aka.ms/acr/firewall to grant access."
    body = json.dumps({"errors": [{"code": "DENIED", "message": words}]}).encode()
    front.fault = Response(403, {"Content-Type": "application/json"}, body)
    with pytest.raises(PermissionDenied) as raised:
        adapter(front).digest(ImageReference(front.address, "a", "v1"))
    assert raised.value.message == f"{front.address} gives the worker no token: 403 DENIED {words}"
    assert "let its network rules allow the worker" in raised.value.hint


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, ServiceUnreachable), (500, ServiceUnreachable), (503, ServiceUnreachable)],
)
def test_exchange_that_fails_for_now_is_sent_once_and_is_neither_absent_nor_denied(
    front: Acr, status: int, kind: type[TransientError]
) -> None:
    front.fault = Response(status, {"Retry-After": "7"}, b"")
    with pytest.raises(TransientError) as raised:
        adapter(front).digest(ImageReference(front.address, "a", "v1"))
    assert type(raised.value) is kind
    assert raised.value.retry_after == 7
    assert len(front.asked("/oauth2/exchange")) == 1


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b'{"refresh_token": "a b"}'])
def test_exchange_that_gives_no_token_is_no_registry_of_azure(front: Acr, body: bytes) -> None:
    front.fault = Response(200, {}, body)
    with pytest.raises(TransientError, match="gives no token"):
        adapter(front).digest(ImageReference(front.address, "a", "v1"))


def test_tokens_are_in_no_message(front: Acr, azure_tokens: Entra) -> None:
    front.rights = {}
    with pytest.raises(PermissionDenied) as raised:
        adapter(front).digest(ImageReference(front.address, "a", "v1"))
    [exchange] = front.asked("/oauth2/exchange")
    assert exchange.field("access_token") not in f"{raised.value!r} {raised.value.__cause__!r}"
    assert CLIENT not in raised.value.message
