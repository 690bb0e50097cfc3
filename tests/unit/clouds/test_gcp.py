"""Google's default credentials: where they are found, who that is, and what is told if they are not
to be had.
"""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.compute_engine import _metadata

from google_token_server import EMAIL, KEY_ID, GoogleServer
from http_faults import FaultyProxy
from imagemill.clouds import Identity, gcp
from imagemill.errors import OperatorError, ServiceUnreachable
from imagemill.objects import store_for
from servers import free_port


@pytest.fixture(autouse=True)
def nothing_set(
    tmp_path: Path, fresh_google: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    """A machine without any credentials, that is none of Google's."""
    for name in (
        "GOOGLE_APPLICATION_CREDENTIALS",
        "STORAGE_EMULATOR_HOST",
        "API_ENDPOINT_OVERRIDE",
        "NO_GCE_CHECK",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("GCE_METADATA_DETECT_RETRIES", "1")
    on_machine(monkeypatch, f"127.0.0.1:{free_port()}")
    yield monkeypatch
    monkeypatch.undo()
    importlib.reload(_metadata)


def on_machine(monkeypatch: pytest.MonkeyPatch, metadata_server: str) -> None:
    """On a machine with this metadata server: google-auth reads its address when it is imported."""
    monkeypatch.setenv("GCE_METADATA_HOST", metadata_server)
    monkeypatch.setenv("GCE_METADATA_IP", metadata_server)
    importlib.reload(_metadata)


@pytest.fixture
def machine(nothing_set: pytest.MonkeyPatch, google: GoogleServer) -> Iterator[GoogleServer]:
    """A machine of Google's, with a service account."""
    google.reset()
    on_machine(nothing_set, google.address)
    yield google
    google.reset()


class TestFound:
    def test_key_file(self, service_account: GoogleServer, tmp_path: Path) -> None:
        found = gcp.identity()
        assert found.name == EMAIL
        assert found.source == (
            f"{tmp_path / 'key.json'} file via the GOOGLE_APPLICATION_CREDENTIALS environment variable"
        )
        assert service_account.accepts(gcp.AccessTokens().current().text)

    def test_file_of_gcloud(self, google: GoogleServer, tmp_path: Path) -> None:
        path = tmp_path / "gcloud" / "application_default_credentials.json"
        path.parent.mkdir()
        path.write_text(json.dumps(google.key_file()))
        assert gcp.identity() == Identity(EMAIL, str(path))

    def test_metadata_server(self, machine: GoogleServer) -> None:
        assert gcp.identity("europe-west4") == Identity(EMAIL, "metadata server")
        token = gcp.AccessTokens().current()
        assert machine.accepts(token.text)
        assert token.text not in repr(token)

    def test_storage_uses_them_too(self, machine: GoogleServer) -> None:
        assert gcp.client()._credentials.service_account_email == "default"
        assert gcp.client() is gcp.client()


class TestNotFound:
    def test_all_sources_are_told_with_what_they_said(self) -> None:
        for ask in (
            gcp.identity,
            gcp.AccessTokens().current,
            lambda: store_for("gs://bucket").exists("name"),
        ):
            with pytest.raises(OperatorError) as raised:
                ask()
            first, *sources = raised.value.message.splitlines()
            assert first.startswith("No Google Cloud credentials were found")
            assert [line.partition(": ")[2] for line in sources] == [
                "the variable is not set",
                "there is no such file",
                "it does not answer",
            ]
            assert "GOOGLE_APPLICATION_CREDENTIALS" in sources[0]
            assert "application_default_credentials.json" in sources[1]
            assert "metadata server" in sources[2]
            assert "gcloud auth application-default login" in raised.value.hint

    def test_server_that_does_not_say_that_it_is_googles_is_no_source(
        self, nothing_set: pytest.MonkeyPatch, google: GoogleServer
    ) -> None:
        """Any router may answer at the metadata server's address."""
        with FaultyProxy(f"http://{google.address}") as proxy:
            on_machine(nothing_set, proxy.url.removeprefix("http://"))
            proxy.fail_next(200, times=9)
            with pytest.raises(OperatorError, match="No Google Cloud credentials were found"):
                gcp.identity()
            assert proxy.requests == [("GET", "/")]

    @pytest.mark.parametrize("content", [None, "no JSON", "{}", '{"type": "service_account"}'])
    def test_file_that_cannot_be_used_is_named(
        self, nothing_set: pytest.MonkeyPatch, tmp_path: Path, content: str | None
    ) -> None:
        path = tmp_path / "key.json"
        if content is not None:
            path.write_text(content)
        nothing_set.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        with pytest.raises(OperatorError, match=r"that were found, .* cannot be used: ") as raised:
            gcp.identity()
        assert str(path) in raised.value.message

    def test_key_that_is_none_is_not_printed(
        self, nothing_set: pytest.MonkeyPatch, google: GoogleServer, tmp_path: Path
    ) -> None:
        secret = "c2VjcmV0"
        path = tmp_path / "key.json"
        key = f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n"
        path.write_text(json.dumps({**google.key_file(), "private_key": key}))
        nothing_set.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        with pytest.raises(OperatorError, match="cannot be used") as raised:
            gcp.identity()
        assert secret not in str(raised.value)
        assert raised.value.__suppress_context__


class TestRefused:
    def test_key_of_another_account_is_refused(
        self, service_account: GoogleServer, tmp_path: Path
    ) -> None:
        other = rsa.generate_private_key(65537, 2048)
        (tmp_path / "key.json").write_text(json.dumps(service_account.key_file(other)))
        with pytest.raises(
            OperatorError, match=r"credentials: invalid_grant: Invalid JWT Signature\."
        ) as raised:
            gcp.identity()
        assert KEY_ID not in str(raised.value)
        assert service_account.requests == ["POST /token"]

    def test_machine_without_a_service_account_is_told(self, machine: GoogleServer) -> None:
        machine.account = False
        with pytest.raises(
            OperatorError,
            match=r"does not accept the worker's credentials: Failed to .*Status: 404",
        ):
            gcp.identity()

    @pytest.mark.parametrize("status", [408, 429, 500, 503])
    def test_token_endpoint_that_fails_is_asked_once(
        self, service_account: GoogleServer, status: int
    ) -> None:
        service_account.failures += [(status, {"Retry-After": "11"}, "")] * 9
        with pytest.raises(
            ServiceUnreachable, match=f"gave no access token: the answer is {status}"
        ) as raised:
            gcp.identity()
        assert raised.value.retry_after == 11
        assert service_account.requests == ["POST /token"]

    def test_token_endpoint_that_says_that_it_failed_is_asked_once(
        self, service_account: GoogleServer
    ) -> None:
        service_account.failures += [(503, {}, json.dumps({"error": "server_error"}))] * 9
        with pytest.raises(ServiceUnreachable):
            gcp.identity()
        assert service_account.requests == ["POST /token"]

    def test_metadata_server_that_fails_is_asked_once(self, machine: GoogleServer) -> None:
        machine.failures += [(503, {}, "")] * 9
        with pytest.raises(ServiceUnreachable, match="the answer is 503"):
            gcp.identity()
        assert sum("token" in request for request in machine.requests) == 1

    def test_token_endpoint_that_is_not_there_is_unreachable(
        self, service_account: GoogleServer, tmp_path: Path
    ) -> None:
        content = {
            **service_account.key_file(),
            "token_uri": f"http://127.0.0.1:{free_port()}/token",
        }
        (tmp_path / "key.json").write_text(json.dumps(content))
        with pytest.raises(ServiceUnreachable, match="gave no access token: Connection refused"):
            gcp.identity()


class TestTokens:
    def test_token_is_kept(self, service_account: GoogleServer) -> None:
        tokens = gcp.AccessTokens()
        assert tokens.current() == tokens.current()
        assert service_account.requests == ["POST /token"]

    def test_token_that_is_about_to_end_is_renewed(self, service_account: GoogleServer) -> None:
        service_account.lifetime = 0
        tokens = gcp.AccessTokens()
        assert tokens.current() != tokens.current()
        assert service_account.requests == ["POST /token"] * 2

    def test_failure_does_not_spoil_the_next_token(self, service_account: GoogleServer) -> None:
        service_account.failures.append((503, {}, ""))
        tokens = gcp.AccessTokens()
        with pytest.raises(ServiceUnreachable):
            tokens.current()
        assert service_account.accepts(tokens.current().text)


@pytest.mark.parametrize(
    ("said", "permission"),
    [
        (
            "x@y does not have storage.objects.create access to the Google Cloud Storage object.",
            "storage.objects.create",
        ),
        (
            "Permission 'storage.buckets.get' denied on resource (or it may not exist).",
            "storage.buckets.get",
        ),
        (
            'Permission "artifactregistry.tags.delete" denied on resource "projects/p"',
            "artifactregistry.tags.delete",
        ),
        (
            'requests do not have permission "artifactregistry.tags.get" on resource "p"',
            "artifactregistry.tags.get",
        ),
        ("The billing account for the owning project is disabled", None),
    ],
)
def test_permission_is_read_from_googles_words(said: str, permission: str | None) -> None:
    assert gcp.permission_named(said) == permission


def test_what_nobody_has_foreseen_is_let_through() -> None:
    with pytest.raises(KeyError), gcp.translated("an action", "a resource"):
        raise KeyError
