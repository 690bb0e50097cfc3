"""Google Cloud for tests: a storage server, and a token server with a service account's key."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from urllib3 import request

from gcp_servers import fake_gcs
from google_token_server import GoogleServer, google_server
from http_faults import FaultyProxy
from imagemill.clouds import gcp
from imagemill.objects import gcs, store_for
from imagemill.ports import ContextStore


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a storage server that lets everybody in."""
    with fake_gcs(tmp_path_factory.mktemp("gcs")) as server:
        yield server.url


@pytest.fixture
def gcs_bucket(gcs_server: str) -> str:
    """The name of an empty bucket that no other test has."""
    name = f"bucket-{uuid.uuid4().hex}"
    answer = request("POST", f"{gcs_server}/storage/v1/b?project=test", json={"name": name})
    assert answer.status == 200, answer.data
    return name


@pytest.fixture
def fresh_google() -> Iterator[None]:
    """Neither a client nor credentials of other tests, nor of this one for others."""
    forget()
    yield
    forget()


def forget() -> None:
    """What the process keeps is found anew."""
    gcp.client.cache_clear()
    gcp._credentials.cache_clear()


@pytest.fixture
def gcs_emulator(gcs_server: str, fresh_google: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's SDK talks to the storage server."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)


@pytest.fixture
def gcs_store(gcs_emulator: None, gcs_bucket: str) -> ContextStore:
    """A store in an empty bucket, below a prefix."""
    return store_for(f"gs://{gcs_bucket}/some/prefix")


@pytest.fixture
def gcs_proxy(
    gcs_server: str, fresh_google: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyProxy]:
    """What Google's SDK talks to, in front of the storage server; it does not wait long between its
    tries.
    """
    monkeypatch.setattr(gcs, "UPLOAD_WAITS", (0.001, 0.01))
    with FaultyProxy(gcs_server) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        yield proxy
        forget()  # the connections, before the proxy


@pytest.fixture(scope="session")
def google() -> Iterator[GoogleServer]:
    """Google's token endpoint and a metadata server."""
    with google_server() as server:
        yield server


@pytest.fixture
def service_account(
    google: GoogleServer, fresh_google: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GoogleServer]:
    """The default credentials are a service account's key, which the token server knows."""
    google.reset()
    path = tmp_path / "key.json"
    path.write_text(json.dumps(google.key_file()))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    yield google
    google.reset()
