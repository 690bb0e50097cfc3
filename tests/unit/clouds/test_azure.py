"""Azure's credential chain as the workers meet it, with servers of ours in place of Microsoft Entra
ID.
"""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest

from azure_fixtures import Names
from azure_token_server import ENTRA, MACHINE, OBJECT, SECRET, TENANT, Entra, Response, entra
from imagemill.clouds import Identity, azure
from imagemill.errors import OperatorError, ServiceUnreachable, TransientError
from imagemill.reference import ImageReference
from imagemill.registries import registry_for
from imagemill.registries.acr import SCOPE, AzureRegistry
from imagemill.registries.docker_config import DockerConfig

NO_TOKEN = f"/{TENANT}/oauth2/v2.0/token"


def token() -> str:
    return azure.credentials().get_token(azure.STORAGE_SCOPE).token


@pytest.mark.usefixtures("azure_client")
def test_identity_is_that_of_the_token_and_names_its_source() -> None:
    assert azure.identity() == Identity(OBJECT, "EnvironmentCredential")


@pytest.mark.usefixtures("azure_client")
def test_user_is_known_by_name(azure_tokens: Entra, monkeypatch: pytest.MonkeyPatch) -> None:

    made = jwt.encode(
        {"upn": "ada@example.com", "oid": OBJECT},
        "a key of a length that is enough for it",
        "HS256",
    )
    monkeypatch.setattr(azure_tokens, "token", lambda *_: made)
    assert azure.identity().name == "ada@example.com"


@pytest.mark.usefixtures("azure_names")
def test_no_credentials_list_every_source_and_what_to_set() -> None:
    with pytest.raises(OperatorError) as raised:
        token()
    first, *sources = raised.value.message.splitlines()
    assert first == "No Azure credentials were found. These were tried, in this order:"
    names = [source.removeprefix("- ").partition(":")[0] for source in sources]
    assert names[:3] == [
        "EnvironmentCredential",
        "WorkloadIdentityCredential",
        "ManagedIdentityCredential",
    ]
    assert {
        "AzureCliCredential",
        "AzurePowerShellCredential",
        "AzureDeveloperCliCredential",
    } <= set(names)
    assert all(source.partition(": ")[2] for source in sources)
    assert "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET" in raised.value.hint


@pytest.mark.usefixtures("azure_client")
def test_wrong_secret_is_told_and_not_repeated(
    azure_tokens: Entra, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "not-this")
    with pytest.raises(OperatorError) as raised:
        token()
    assert raised.value.message.startswith(
        "EnvironmentCredential gets no token for its credentials: "
    )
    assert "AADSTS7000215: Invalid client secret" in raised.value.message
    assert raised.value.hint.startswith("check tenant, client and secret")
    assert "not-this" not in f"{raised.value!r}{capfd.readouterr()}"
    assert len(azure_tokens.asked(NO_TOKEN)) == 1


@pytest.mark.usefixtures("azure_client")
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"AZURE_TOKEN_CREDENTIALS": "nonsense"},
            "Invalid value for AZURE_TOKEN_CREDENTIALS: nonsense",
        ),
        ({"AZURE_TENANT_ID": "not a tenant"}, "Invalid tenant ID"),
        ({"AZURE_CLIENT_SECRET": ""}, "secret should be"),
        ({"AZURE_AUTHORITY_HOST": "http://login.example.com"}, "must be a TLS protected"),
        (
            {"AZURE_CLIENT_CERTIFICATE_PATH": "/not/there.pem"},
            "No such file or directory: '/not/there.pem'",
        ),
        ({"AZURE_CLIENT_CERTIFICATE_PATH": __file__}, "Failed to deserialize certificate"),
        ({"AZURE_FEDERATED_TOKEN_FILE": "/not/there"}, "No such file or directory: '/not/there'"),
        ({"AZURE_FEDERATED_TOKEN_FILE": "/"}, "Is a directory: '/'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_credentials_that_cannot_be_used_are_told_with_what_sets_them(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], told: str
) -> None:
    if {"AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_FEDERATED_TOKEN_FILE"} & settings.keys():
        monkeypatch.delenv("AZURE_CLIENT_SECRET")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for ask in (token, azure.identity):
        with pytest.raises(
            OperatorError, match=r"^The Azure credentials cannot be used: "
        ) as raised:
            ask()
        assert told in raised.value.message
        assert next(iter(settings)) in raised.value.hint


@pytest.mark.usefixtures("azure_client")
def test_tenant_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TENANT_ID", "no-such-tenant")
    with pytest.raises(OperatorError, match="/no-such-tenant") as raised:
        token()
    assert "check tenant" in raised.value.hint


@pytest.mark.usefixtures("azure_client")
@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_entra_that_is_down_is_asked_once_and_is_no_lack_of_credentials(
    azure_tokens: Entra, status: int
) -> None:
    azure_tokens.fault = Response(status, {"Retry-After": "9"}, b"{}")
    with pytest.raises(TransientError) as raised:
        token()
    assert raised.value.retry_after == 9
    assert len(azure_tokens.asked(NO_TOKEN)) == 1


@pytest.mark.usefixtures("azure_client")
def test_entra_that_says_that_it_passes_is_believed(azure_tokens: Entra) -> None:
    said = b'{"error": "temporarily_unavailable", "error_description": "AADSTS90033: A transient error has occurred."}'
    azure_tokens.fault = Response(400, {"Content-Type": "application/json"}, said)
    with pytest.raises(TransientError, match="AADSTS90033"):
        token()


@pytest.mark.usefixtures("azure_client")
def test_entra_that_cannot_be_reached_is_no_lack_of_credentials(azure_names: Names) -> None:
    del azure_names.hosts[ENTRA]
    with pytest.raises(ServiceUnreachable, match=r"Microsoft Entra ID .* cannot be reached"):
        token()


@pytest.mark.usefixtures("azure_client")
def test_certificate_that_is_not_trusted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(OperatorError, match=r"The certificate of .* is not trusted") as raised:
        token()
    assert "IMAGEMILL_AUTHORITIES" in raised.value.hint


def test_machine_without_an_identity_has_no_credentials(
    azure_names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    with entra(None) as metadata:
        metadata.machine = False
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{metadata.port}")
        with pytest.raises(OperatorError, match=r"ManagedIdentityCredential: .*Identity not found"):
            token()


def test_machine_that_stops_giving_tokens_is_no_lack_of_credentials(
    azure_names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    with entra(None) as metadata:
        metadata.lifetime = 1
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{metadata.port}")
        assert azure.identity() == Identity(MACHINE, "ManagedIdentityCredential")
        metadata.machine = False
        with pytest.raises(TransientError, match="ManagedIdentityCredential gives no more tokens"):
            token()


@pytest.mark.usefixtures("azure_client")
def test_threads_share_one_token(azure_tokens: Entra) -> None:
    first = token()
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: token(), range(32))) == {first}
    assert len(azure_tokens.asked(NO_TOKEN)) == 1


@pytest.mark.usefixtures("azure_client")
def test_forked_process_has_a_chain_of_its_own() -> None:
    assert token()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(token)


@pytest.mark.parametrize(
    "host",
    ["mill.azurecr.io", "mill.azurecr.cn", "mill.azurecr.us", "contoso-abc123def.azurecr.io"],
)
def test_registries_of_all_clouds_are_asked_with_a_token_for_registries(
    host: str, tmp_path: Path
) -> None:
    registry = registry_for(
        ImageReference(host, "team/model"), docker_config=DockerConfig(tmp_path)
    )
    assert isinstance(registry, AzureRegistry)
    assert SCOPE == "https://containerregistry.azure.net/.default"


@pytest.mark.parametrize(
    "host",
    ["a-b-c.azurecr.io", "a--b.azurecr.io", "mill.azurecr.io.example.com", "mill.azurecr.io:443"],
)
def test_host_that_only_resembles_one_of_azure_is_given_no_token(host: str, tmp_path: Path) -> None:
    registry = registry_for(
        ImageReference(host, "team/model"), docker_config=DockerConfig(tmp_path)
    )
    assert not isinstance(registry, AzureRegistry)


@pytest.mark.usefixtures("azure_names")
def test_secrets_are_in_no_repr() -> None:
    assert SECRET not in repr(azure.credentials())
