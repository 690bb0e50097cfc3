"""What the store in Azure's Blob storage does besides the contract of all stores, on Microsoft's
emulator.
"""

import base64
import hashlib
import os
import re
import tracemalloc
from pathlib import Path

import pytest
from azure.core.credentials import AzureNamedKeyCredential
from azure.storage.blob import BlobBlock, ContainerClient, ContentSettings

import azure_servers
from azure_fixtures import KEY, STORAGE, Names
from azure_token_server import FEDERATED_TOKEN, MACHINE, TENANT, Entra, entra
from imagemill.clouds import Identity, azure
from imagemill.errors import OperatorError, TransientError, UserError
from imagemill.objects import check, store_for
from imagemill.objects.azure import BLOCK, PARALLEL, AzureBlobStore

NAME = f"{'0' * 64}.tar.gz"
FORM = "write https://ACCOUNT.blob.core.windows.net/CONTAINER[/PREFIX]"


def put(store: AzureBlobStore, name: str, content: bytes) -> None:
    with store.create(name) as stream:
        stream.write(content)


def get(store: AzureBlobStore, name: str) -> bytes:
    with store.open(name) as stream:
        return stream.read()


@pytest.fixture
def container(azure_container: str) -> ContainerClient:
    """The container of the stores, as somebody else sees it."""
    return ContainerClient.from_container_url(azure_container, KEY)


@pytest.fixture(params=["token", "key"])
def store(request: pytest.FixtureRequest) -> AzureBlobStore:
    name = {"token": "azure_blob_store", "key": "azure_blob_key_store"}[request.param]
    made: AzureBlobStore = request.getfixturevalue(name)
    return made


def test_key_and_token_are_both_taken(store: AzureBlobStore) -> None:
    check(store)
    put(store, NAME, b"content")
    assert store.exists(NAME)
    assert get(store, NAME) == b"content"
    store.delete(NAME)
    assert not store.exists(NAME)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17])
def test_md5_of_all_content_is_stored_with_the_object(
    azure_blob_key_store: AzureBlobStore, container: ContainerClient, size: int
) -> None:
    content = os.urandom(size)
    with azure_blob_key_store.create(NAME) as stream:
        for start in range(0, size, 1 << 20):
            stream.write(content[start : start + (1 << 20)])
    found = container.get_blob_client(f"a/prefix/{NAME}").get_blob_properties()
    assert found.content_settings.content_md5 == bytearray(hashlib.md5(content).digest())
    assert get(azure_blob_key_store, NAME) == content


def test_one_write_of_many_blocks_is_stored(azure_blob_key_store: AzureBlobStore) -> None:
    content = os.urandom(2 * BLOCK + 5)
    put(azure_blob_key_store, NAME, content)
    assert get(azure_blob_key_store, NAME) == content


def test_object_without_a_checksum_is_not_there(
    azure_blob_key_store: AzureBlobStore, container: ContainerClient
) -> None:
    blob = container.get_blob_client(f"a/prefix/{NAME}")
    blob.stage_block("0", b"content")
    blob.commit_block_list([BlobBlock("0")])
    assert not azure_blob_key_store.exists(NAME)
    with pytest.raises(FileNotFoundError, match="has no MD5"), azure_blob_key_store.open(NAME):
        pass
    put(azure_blob_key_store, NAME, b"content")
    assert get(azure_blob_key_store, NAME) == b"content"


def test_object_that_is_not_what_was_stored_is_not_given_out_whole(
    azure_blob_key_store: AzureBlobStore, container: ContainerClient
) -> None:
    put(azure_blob_key_store, NAME, b"content")
    other = ContentSettings(content_md5=bytearray(hashlib.md5(b"another").digest()))
    container.get_blob_client(f"a/prefix/{NAME}").set_http_headers(other)
    with pytest.raises(TransientError) as raised:
        get(azure_blob_key_store, NAME)
    assert (
        raised.value.message
        == f"What was read of {azure_blob_key_store.uri(NAME)} is not what was stored"
    )


def test_object_can_be_read_in_pieces(azure_blob_key_store: AzureBlobStore) -> None:
    content = os.urandom(2 * BLOCK + 5)
    put(azure_blob_key_store, NAME, content)
    with azure_blob_key_store.open(NAME) as stream:
        read = iter(lambda: stream.read(1_000_003), b"")
        assert b"".join(read) == content


def test_what_is_left_of_an_upload_that_was_given_up_does_not_hinder_the_next(
    azure_blob_key_store: AzureBlobStore, container: ContainerClient
) -> None:
    def fail() -> None:
        with azure_blob_key_store.create(NAME) as stream:
            stream.write(os.urandom(2 * BLOCK))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(container.list_blob_names()) == []
    put(azure_blob_key_store, NAME, b"content")
    assert get(azure_blob_key_store, NAME) == b"content"
    # Blocks that were on their way may come still; Azure removes them after a week.
    committed, _ = container.get_blob_client(f"a/prefix/{NAME}").get_block_list("all")
    assert len(committed) == 1


def test_upload_that_another_one_overtakes_is_as_if_it_had_been_first(
    azure_blob_key_store: AzureBlobStore,
) -> None:
    """Azure forgets the blocks of the slower one when the faster one is done."""
    with azure_blob_key_store.create(NAME) as slow:
        slow.write(b"s" * BLOCK * (PARALLEL + 2))
        put(azure_blob_key_store, NAME, b"fast")
    assert get(azure_blob_key_store, NAME) == b"fast"


def test_upload_whose_object_is_deleted_meanwhile_fails_for_now(
    azure_blob_key_store: AzureBlobStore,
) -> None:
    def overtaken() -> None:
        with azure_blob_key_store.create(NAME) as slow:
            slow.write(b"s" * BLOCK * (PARALLEL + 2))
            put(azure_blob_key_store, NAME, b"fast")
            azure_blob_key_store.delete(NAME)

    with pytest.raises(TransientError, match="was deleted while it was sent"):
        overtaken()
    assert not azure_blob_key_store.exists(NAME)


def test_object_that_is_replaced_while_it_is_read_fails_for_now(
    azure_blob_key_store: AzureBlobStore,
) -> None:
    put(azure_blob_key_store, NAME, os.urandom(3 * BLOCK))
    with azure_blob_key_store.open(NAME) as stream:
        stream.read(10)
        put(azure_blob_key_store, NAME, os.urandom(3 * BLOCK))
        with pytest.raises(TransientError, match="was replaced while it was read"):
            stream.read()


def test_memory_of_an_upload_and_a_download_is_bounded(
    azure_blob_key_store: AzureBlobStore,
) -> None:
    chunk, chunks = os.urandom(1 << 20), 128
    tracemalloc.start()
    try:
        with azure_blob_key_store.create(NAME) as stream:
            for _ in range(chunks):
                stream.write(chunk)
        with azure_blob_key_store.open(NAME) as stream:
            assert (
                sum(len(read) for read in iter(lambda: stream.read(1 << 20), b"")) == chunks << 20
            )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 96 << 20


def test_prefix_is_kept_and_its_special_characters_are_quoted(
    azure_container: str, container: ContainerClient
) -> None:
    store = AzureBlobStore(f"{azure_container}/with%20space/%C3%A9/", credential=KEY)
    put(store, NAME, b"content")
    assert list(container.list_blob_names()) == [f"with space/é/{NAME}"]
    assert store.uri(NAME) == f"{azure_container}/with%20space/%C3%A9/{NAME}"
    assert get(store, NAME) == b"content"


def test_container_itself_may_be_the_store(
    azure_container: str, container: ContainerClient
) -> None:
    for uri in (azure_container, f"{azure_container}/"):
        store = AzureBlobStore(uri, credential=KEY)
        put(store, NAME, b"content")
        assert list(container.list_blob_names()) == [NAME]
        assert store.uri(NAME) == f"{azure_container}/{NAME}"


@pytest.mark.parametrize(
    "uri",
    [
        "https://millstore.blob.core.windows.net",
        "https://millstore.blob.core.windows.net/",
        "https://millstore.blob.core.windows.net/A-Container",
        "https://millstore.blob.core.windows.net/two--dashes",
        "https://millstore.blob.core.windows.net/container?sig=abc",
        "https://Mill.blob.core.windows.net/container",
        "https://example.com/container",
        "https://user:password@millstore.blob.core.windows.net/container",
    ],
)
def test_uri_that_names_no_container_is_refused(uri: str) -> None:
    with pytest.raises(UserError) as raised:
        store_for(uri)
    assert "is not the URI of a container" in raised.value.message
    assert raised.value.hint == FORM
    assert not re.search("abc|password", raised.value.message)


@pytest.mark.parametrize("suffix", ["windows.net", "chinacloudapi.cn", "usgovcloudapi.net"])
def test_stores_of_sovereign_clouds_are_known(suffix: str) -> None:
    uri = f"https://millstore.blob.core.{suffix}/container"
    assert store_for(uri).uri(NAME) == f"{uri}/{NAME}"


# --- The sources of the credential chain ---


def test_workload_identity_is_found(
    azure_container: str,
    azure_client: None,
    azure_tokens: Entra,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "token").write_text(FEDERATED_TOKEN)
    monkeypatch.delenv("AZURE_CLIENT_SECRET")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    check(AzureBlobStore(azure_container))
    assert azure.credentials().answered == "WorkloadIdentityCredential"
    assert (
        azure_tokens.asked(f"/{TENANT}/oauth2/v2.0/token")[0].field("client_assertion")
        == FEDERATED_TOKEN
    )


def test_managed_identity_is_found(azure_container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with entra(None) as metadata:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{metadata.port}")
        check(AzureBlobStore(azure_container))
        assert azure.identity() == Identity(MACHINE, "ManagedIdentityCredential")
        assert {request.field("resource") for request in metadata.requests} == {
            "https://storage.azure.com"
        }


def test_one_token_serves_many_calls(azure_blob_store: AzureBlobStore, azure_tokens: Entra) -> None:
    for _ in range(3):
        check(azure_blob_store)
    assert len(azure_tokens.asked("/token")) == 1


def test_no_credentials_are_told_with_the_sources(azure_container: str) -> None:
    store = AzureBlobStore(azure_container)
    for attempt in (
        store.exists,
        store.delete,
        lambda name: put(store, name, b""),
        lambda name: get(store, name),
    ):
        with pytest.raises(OperatorError, match="No Azure credentials were found"):
            attempt(NAME)


# --- Refusals of the service ---


def test_wrong_key_is_told(azure_container: str, azure_names: Names) -> None:
    wrong = AzureNamedKeyCredential(
        azure_servers.ACCOUNT, base64.b64encode(b"another key").decode()
    )
    store = AzureBlobStore(azure_container, credential=wrong)
    for attempt in (
        store.exists,
        store.delete,
        lambda name: put(store, name, b""),
        lambda name: get(store, name),
    ):
        with pytest.raises(OperatorError) as raised:
            attempt(NAME)
        assert raised.value.message.startswith(
            f"{azure_container} does not accept the credentials: "
        )
        assert "the account key is right" in raised.value.hint
        assert wrong.named_key.key not in str(raised.value)


def test_missing_container_is_named_and_never_taken_for_an_absent_object(
    azure_blob_store: AzureBlobStore,
) -> None:
    container = f"https://{STORAGE}/missing"
    store = AzureBlobStore(container, credential=KEY)
    for attempt in (
        store.exists,
        store.delete,
        lambda name: put(store, name, b""),
        lambda name: get(store, name),
    ):
        with pytest.raises(UserError) as raised:
            attempt(NAME)
        assert raised.value.message.startswith(f"There is no container {container}: ")
