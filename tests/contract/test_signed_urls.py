"""Signed URLs of packed contexts: whoever has one reads one object, until it ends, and no more."""

import base64
import importlib
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from google.auth.compute_engine import _metadata
from urllib3 import ProxyManager, request

from aws_fixtures import use_temporary_keys
from azure_fixtures import Certificate, Names, proxy
from certificates import write_with_key
from google_token_server import EMAIL, GoogleServer
from imagemill.builders.kaniko.context_access import kaniko_url
from imagemill.errors import PermissionDenied
from imagemill.objects import store_for
from imagemill.objects.azure import AzureBlobStore
from imagemill.objects.names import SIGNED_AT_MOST
from imagemill.ports import ContextStore, SignedUrl
from web import Request, Response, Web, serve

NAME = f"{'0' * 64}.tar.gz"


def put(store: ContextStore, name: str = NAME) -> None:
    with store.create(name) as stream:
        stream.write(b"content")


def signed(store: ContextStore, seconds: float = 60) -> SignedUrl:
    made = store.signed(NAME, seconds)
    assert made is not None
    assert made.text not in repr(made)
    return made


def test_s3_lets_whoever_has_the_url_read_this_object_alone(s3_store: ContextStore) -> None:
    put(s3_store)
    put(s3_store, "another")
    url = signed(s3_store).text
    assert request("GET", url).data == b"content"
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    assert request("GET", url.replace(NAME, "another")).status == 403
    assert request("PUT", url, body=b"other").status == 403
    assert request("DELETE", url).status == 403
    assert request("GET", url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000")).status == 403


def test_a_url_ends_with_its_time_and_with_the_credentials_that_signed_it(
    s3_store: ContextStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert signed(s3_store, 60).expires == pytest.approx(time.time() + 60, abs=30)
    assert signed(s3_store, 1e9).expires == pytest.approx(time.time() + SIGNED_AT_MOST, abs=30)
    use_temporary_keys(monkeypatch, tmp_path)
    assert signed(s3_store, 1800).expires == pytest.approx(time.time() + 1800, abs=30)
    assert signed(s3_store, 7200).expires == pytest.approx(time.time() + 600, abs=30)


def test_a_folder_has_no_urls(tmp_path: Path) -> None:
    assert store_for(tmp_path.as_uri()).signed(NAME, 60) is None


# Azure


@pytest.fixture
def azure_web(azure_names: Names, azure_certificate: Certificate) -> ProxyManager:
    """Whoever is on Azure's network and has no credentials there."""
    return ProxyManager(azure_names.url, ca_certs=str(azure_certificate.certificate))


def test_azure_lets_whoever_has_the_url_read_this_object_alone(
    azure_blob_key_store: AzureBlobStore, azure_web: ProxyManager
) -> None:
    """Also under the address that Kaniko takes."""
    put(azure_blob_key_store)
    put(azure_blob_key_store, "another")
    url = kaniko_url(signed(azure_blob_key_store).text)
    assert ":443/" in url
    assert azure_web.request("GET", url).data == b"content"
    assert azure_web.request("GET", url.replace(NAME, "another")).status == 403
    assert azure_web.request("DELETE", url).status == 403


def test_azure_signs_for_an_identity_with_a_key_that_it_asks_for(
    azure_blob_store: AzureBlobStore,
) -> None:
    """Microsoft's emulator gives such keys; the signatures of the SDK's version it does not know."""
    url = signed(azure_blob_store)
    query = parse_qs(urlsplit(url.text).query)
    assert (query["sp"], query["sr"]) == (["r"], ["b"])
    assert query["se"] == query["ske"]
    assert {"skoid", "sktid", "sig"} < query.keys()
    assert url.expires == pytest.approx(time.time() + 60, abs=30)


# Google Cloud


def test_google_urls_are_signed_with_the_service_accounts_key(
    gcs_store: ContextStore, service_account: GoogleServer
) -> None:
    put(gcs_store)
    url = signed(gcs_store)
    # The server looks at no signature; objects are at this host's root, as at Google's.
    google = {"Host": "storage.googleapis.com"}
    assert request("GET", url.text, headers=google).data == b"content"
    assert f"{EMAIL.replace('@', '%40')}%2F" in url.text
    assert url.expires == pytest.approx(time.time() + 60, abs=30)


@pytest.fixture
def signing_service(
    tmp_path: Path,
    gcs_store: ContextStore,
    google: GoogleServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Web]:
    """Google's signing service, for a machine whose service account has no key at hand."""

    def answer(asked: Request) -> Response:
        if not asked.headers["authorization"].startswith("Bearer ya29."):
            return Response(401)
        if (tmp_path / "refused").exists():
            error = {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no"}}
            return Response(403, {}, json.dumps(error).encode())
        return Response(
            200, {}, json.dumps({"signedBlob": base64.b64encode(b"s").decode()}).encode()
        )

    google.reset()
    pem = tmp_path / "google.pem"
    write_with_key(pem, "iamcredentials.googleapis.com")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    with serve(answer, tls) as web, proxy({}) as names:
        names.hosts["iamcredentials.googleapis.com"] = int(web.address.partition(":")[2])
        monkeypatch.setenv("HTTPS_PROXY", names.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        for variable in ("GCE_METADATA_HOST", "GCE_METADATA_IP"):
            monkeypatch.setenv(variable, google.address)
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "nothing"))
        importlib.reload(_metadata)
        yield web
    monkeypatch.undo()
    importlib.reload(_metadata)


def test_google_signs_for_a_machine_without_a_key(
    signing_service: Web, gcs_store: ContextStore
) -> None:
    put(gcs_store)
    url = signed(gcs_store)
    [asked] = signing_service.requests
    assert asked.path.startswith(f"/v1/projects/-/serviceAccounts/{EMAIL}:signBlob")
    assert url.text.endswith(f"X-Goog-Signature={b's'.hex()}")


def test_who_may_not_sign_at_google_is_told_the_role(
    signing_service: Web, gcs_store: ContextStore, tmp_path: Path
) -> None:
    (tmp_path / "refused").touch()
    with pytest.raises(PermissionDenied, match="signBlob") as raised:
        gcs_store.signed(NAME, 60)
    assert "roles/iam.serviceAccountTokenCreator" in raised.value.hint
