"""The store in Azure's Blob storage behind a proxy that fails, resets, corrupts and refuses."""

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pytest
from azure.core.pipeline.transport import HttpTransport

from azure_fixtures import KEY, STORAGE, Certificate, Names
from azure_token_server import ENTRA, TENANT, Entra
from http_faults import FaultyProxy
from imagemill.errors import OperatorError, PermissionDenied, ServiceUnreachable, TransientError
from imagemill.objects.azure import BLOCK, AzureBlobStore
from imagemill.objects.names import UPLOAD_TRIES
from servers import Server
from service import until

NAME = f"{'0' * 64}.tar.gz"
BLOCKS, LIST = r"^PUT .*comp=block&", r"^PUT .*comp=blocklist"
ACTIONS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"


def put(store: AzureBlobStore, name: str, content: bytes = b"content") -> None:
    with store.create(name) as stream:
        stream.write(content)


def get(store: AzureBlobStore, name: str) -> bytes:
    with store.open(name) as stream:
        return stream.read()


SINGLE: dict[str, Callable[[AzureBlobStore, str], object]] = {
    "exists": lambda store, name: store.exists(name),
    "open": get,
    "delete": lambda store, name: store.delete(name),
}
"""The calls that are sent once."""


def error_of(code: str) -> tuple[dict[str, str], bytes]:
    """Headers and body of an answer of Blob storage that says no."""
    headers = {"x-ms-error-code": code, "Content-Type": "application/xml"}
    return (
        headers,
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>Words.</Message></Error>".encode(),
    )


@pytest.fixture
def proxy(
    azurite: Server, azure_container: str, azure_names: Names, azure_certificate: Certificate
) -> Iterator[FaultyProxy]:
    with FaultyProxy(azurite.url, azure_certificate.context()) as proxy:
        azure_names.hosts[STORAGE] = int(proxy.origin.rpartition(":")[2])
        yield proxy


@pytest.fixture
def store(proxy: FaultyProxy, azure_container: str) -> AzureBlobStore:
    return AzureBlobStore(azure_container, credential=KEY)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the SDK has waited between tries; it does not really."""
    waited: list[float] = []
    monkeypatch.setattr(HttpTransport, "sleep", lambda _, seconds: waited.append(seconds))
    return waited


# --- What is sent once ---


@pytest.mark.parametrize("call", SINGLE)
@pytest.mark.parametrize("status", [408, 500, 502, 503])
def test_call_that_fails_for_now_is_sent_once(
    store: AzureBlobStore, proxy: FaultyProxy, call: str, status: int
) -> None:
    headers, body = error_of("ServerBusy" if status == 503 else "OperationTimedOut")
    proxy.fail_next(status, {**headers, "Retry-After": "11"}, times=9, body=body)
    with pytest.raises(ServiceUnreachable) as raised:
        SINGLE[call](store, NAME)
    assert raised.value.message.startswith(f"{store.container} answers {status} ")
    assert (raised.value.retry_after, raised.value.exhausted) == (11, False)
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("call", SINGLE)
def test_call_that_is_limited_says_when_to_come_again(
    store: AzureBlobStore, proxy: FaultyProxy, call: str
) -> None:
    proxy.fail_next(429, {"Retry-After": "7"}, times=9)
    with pytest.raises(TransientError) as raised:
        SINGLE[call](store, NAME)
    assert (raised.value.retry_after, raised.value.exhausted) == (7, False)
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("call", SINGLE)
def test_call_whose_connection_is_reset_is_sent_once(
    store: AzureBlobStore, proxy: FaultyProxy, call: str
) -> None:
    proxy.reset_next(times=9)
    with pytest.raises(ServiceUnreachable) as raised:
        SINGLE[call](store, NAME)
    assert not raised.value.exhausted
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("call", SINGLE)
def test_account_that_cannot_be_reached_is_neither_empty_nor_denied(
    store: AzureBlobStore, azure_names: Names, call: str
) -> None:
    del azure_names.hosts[STORAGE]
    with pytest.raises(ServiceUnreachable, match=r"cannot be reached: ") as raised:
        SINGLE[call](store, NAME)
    assert "HTTPS_PROXY" in raised.value.hint


def test_answer_that_breaks_off_is_read_again_by_the_sdk_twice(
    store: AzureBlobStore, proxy: FaultyProxy
) -> None:
    put(store, NAME, os.urandom(100_000))
    proxy.clear()
    proxy.reset_next(after_bytes=50_000, times=9, match="^GET ")
    with pytest.raises(ServiceUnreachable, match="breaks off its answer"):
        get(store, NAME)
    assert proxy.asked("^GET ") == 3


# --- Uploads ---


@pytest.mark.parametrize("match", [BLOCKS, LIST])
def test_upload_outlasts_a_storm_of_503(
    store: AzureBlobStore, proxy: FaultyProxy, waits: list[float], match: str
) -> None:
    headers, body = error_of("ServerBusy")
    proxy.fail_next(503, headers, times=UPLOAD_TRIES - 1, match=match, body=body)
    put(store, NAME)
    assert proxy.asked(match) == UPLOAD_TRIES
    assert len(waits) == UPLOAD_TRIES - 1
    assert all(abs(wait - meant) <= 1 for wait, meant in zip(waits, (3, 5, 9, 17, 33), strict=True))
    assert get(store, NAME) == b"content"


@pytest.mark.parametrize("match", [BLOCKS, LIST])
def test_upload_gives_up_after_its_tries_and_says_so(
    store: AzureBlobStore, proxy: FaultyProxy, waits: list[float], match: str
) -> None:
    headers, body = error_of("ServerBusy")
    proxy.fail_next(503, headers, times=99, match=match, body=body)
    with pytest.raises(TransientError) as raised:
        put(store, NAME)
    assert raised.value.exhausted
    assert proxy.asked(match) == UPLOAD_TRIES
    assert len(waits) == UPLOAD_TRIES - 1
    assert not store.exists(NAME)


@pytest.mark.parametrize("match", [BLOCKS, LIST])
def test_upload_whose_connection_is_always_reset_gives_up_after_its_tries(
    store: AzureBlobStore, proxy: FaultyProxy, waits: list[float], match: str
) -> None:
    proxy.reset_next(times=99, match=match)
    with pytest.raises(ServiceUnreachable) as raised:
        put(store, NAME)
    assert raised.value.exhausted
    assert proxy.asked(match) == UPLOAD_TRIES


def test_upload_goes_on_after_a_reset_in_the_middle(
    store: AzureBlobStore, proxy: FaultyProxy, waits: list[float]
) -> None:
    content = os.urandom(2 * BLOCK)
    proxy.reset_next(after_bytes=BLOCK // 2, times=2, match=BLOCKS)
    put(store, NAME, content)
    assert proxy.asked(BLOCKS) == 4
    assert get(store, NAME) == content


def test_upload_outlasts_latency(store: AzureBlobStore, proxy: FaultyProxy) -> None:
    proxy.delay(0.1)
    content = os.urandom(3 * BLOCK)
    put(store, NAME, content)
    assert get(store, NAME) == content


@pytest.mark.parametrize("match", [BLOCKS, LIST])
@pytest.mark.parametrize("status", [429, 503])
def test_upload_that_is_limited_waits_as_long_as_it_is_asked_to(
    store: AzureBlobStore, proxy: FaultyProxy, waits: list[float], match: str, status: int
) -> None:
    headers, body = error_of("ServerBusy")
    proxy.fail_next(status, {**headers, "Retry-After": "20"}, times=1, match=match, body=body)
    proxy.fail_next(status, {**headers, "Retry-After": "7200"}, times=1, match=match, body=body)
    proxy.fail_next(status, headers, times=1, match=match, body=body)
    put(store, NAME, bytes(2 * BLOCK))
    assert proxy.asked(match) == 3 + {BLOCKS: 2, LIST: 1}[match]
    assert sorted(waits)[-2:] == [20, 60]
    assert len(waits) == 3
    assert get(store, NAME) == bytes(2 * BLOCK)


@pytest.mark.parametrize("match", [BLOCKS, LIST])
def test_upload_that_is_limited_for_good_gives_up_after_its_tries(
    store: AzureBlobStore, proxy: FaultyProxy, waits: list[float], match: str
) -> None:
    proxy.fail_next(429, {"Retry-After": "3"}, times=99, match=match)
    with pytest.raises(TransientError, match="too many requests") as raised:
        put(store, NAME)
    assert (raised.value.retry_after, raised.value.exhausted) == (3, True)
    assert proxy.asked(match) == UPLOAD_TRIES
    assert len(waits) == UPLOAD_TRIES - 1


def test_failure_shows_before_all_is_written(store: AzureBlobStore, proxy: FaultyProxy) -> None:
    headers, body = error_of("AuthorizationPermissionMismatch")
    proxy.fail_next(403, headers, times=99, match=BLOCKS, body=body)
    written = 0

    def write() -> None:
        nonlocal written
        with store.create(NAME) as stream:
            while written < 1000:
                stream.write(bytes(BLOCK))
                written += 1

    with pytest.raises(PermissionDenied):
        write()
    assert written < 10


def test_block_that_arrives_damaged_is_refused_and_nothing_is_stored(
    store: AzureBlobStore, proxy: FaultyProxy
) -> None:
    proxy.corrupt_next(match=BLOCKS)
    with pytest.raises(TransientError, match="arrived damaged") as raised:
        put(store, NAME)
    assert not raised.value.exhausted
    assert not store.exists(NAME)


def test_damage_on_the_way_is_told_and_may_pass(store: AzureBlobStore, proxy: FaultyProxy) -> None:
    headers, body = error_of("Md5Mismatch")
    proxy.fail_next(400, headers, match=BLOCKS, body=body)
    with pytest.raises(TransientError, match="arrived damaged") as raised:
        put(store, NAME)
    assert not raised.value.exhausted


def test_object_that_is_damaged_on_its_way_back_is_not_given_out(
    store: AzureBlobStore, proxy: FaultyProxy
) -> None:
    put(store, NAME)
    proxy.corrupt_next(match="^GET ")
    with pytest.raises(TransientError, match="is not what was stored"):
        get(store, NAME)
    assert get(store, NAME) == b"content"


# --- Tokens ---


AUTHORITY = f"https://{ENTRA}/{TENANT}/oauth2/authorize"
CHALLENGE = {
    "WWW-Authenticate": f"Bearer authorization_uri={AUTHORITY} resource_id=https://storage.azure.com"
}
HEAD = "^HEAD "


@pytest.fixture
def token_store(proxy: FaultyProxy, azure_container: str, azure_client: None) -> AzureBlobStore:
    """A store that is used with tokens."""
    return AzureBlobStore(azure_container)


def refuse_token(
    proxy: FaultyProxy, match: str, times: int, detail: str = "", **headers: str
) -> None:
    """Answer as Azure does to a token that it does not take; to a HEAD that is an answer without a
    body.
    """
    coded, body = error_of("InvalidAuthenticationInfo")
    told = f"<AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail></Error>".encode()
    body = body.replace(b"</Error>", told) if detail else body
    proxy.fail_next(401, {**coded, **headers}, times=times, match=match, body=body)


def put_first_block(stream: BinaryIO, proxy: FaultyProxy, content: bytes) -> None:
    """Write one block, and wait until the proxy has it, so that what happens next happens to
    others.
    """
    stream.write(content)
    stream.flush()
    until(lambda: proxy.asked(BLOCKS) == 1, "the first block")


@pytest.mark.parametrize("match", [BLOCKS, LIST])
def test_upload_of_several_blocks_goes_on_after_a_token_was_refused(
    token_store: AzureBlobStore, proxy: FaultyProxy, match: str
) -> None:
    content = os.urandom(3 * BLOCK)
    with token_store.create(NAME) as stream:
        put_first_block(stream, proxy, content[:BLOCK])
        refuse_token(proxy, match, 1, **CHALLENGE)
        stream.write(content[BLOCK:])
    assert proxy.asked(match) == 1 + {BLOCKS: 3, LIST: 1}[match]
    assert get(token_store, NAME) == content


def test_object_is_found_after_a_token_was_refused(
    token_store: AzureBlobStore, proxy: FaultyProxy
) -> None:
    put(token_store, NAME)
    refuse_token(proxy, HEAD, 1, **CHALLENGE)
    assert token_store.exists(NAME)
    assert proxy.asked(HEAD) == 2


@pytest.mark.parametrize("match", [BLOCKS, LIST])
@pytest.mark.parametrize("detail", ["", "Lifetime validation failed. The token is expired."])
def test_upload_whose_token_is_not_taken_any_more_begins_anew(
    token_store: AzureBlobStore, proxy: FaultyProxy, match: str, detail: str
) -> None:
    def upload() -> None:
        with token_store.create(NAME) as stream:
            put_first_block(stream, proxy, bytes(BLOCK))
            refuse_token(proxy, match, 99, detail)
            stream.write(bytes(2 * BLOCK))

    with pytest.raises(TransientError, match="does not take the token any more"):
        upload()
    proxy.clear()
    assert not token_store.exists(NAME)


@pytest.mark.parametrize("call", SINGLE)
@pytest.mark.parametrize(
    "headers", [{"x-ms-error-code": "InvalidAuthenticationInfo"}, {}], ids=["code", "no code"]
)
def test_refused_token_of_which_nothing_is_told_may_have_expired(
    token_store: AzureBlobStore, proxy: FaultyProxy, call: str, headers: dict[str, str]
) -> None:
    proxy.fail_next(401, headers, times=9)
    with pytest.raises(TransientError, match="does not take the token any more") as raised:
        SINGLE[call](token_store, NAME)
    assert not raised.value.exhausted
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("call", ["open", "delete"])
@pytest.mark.parametrize(
    "detail", ["Audience validation failed.", "Issuer validation failed. Issuer did not match."]
)
def test_token_that_is_refused_for_another_reason_is_told(
    token_store: AzureBlobStore, proxy: FaultyProxy, call: str, detail: str
) -> None:
    refuse_token(proxy, "", 9, detail)
    with pytest.raises(OperatorError, match="does not accept the credentials"):
        SINGLE[call](token_store, NAME)


def test_page_of_another_server_in_between_is_no_expired_token(
    token_store: AzureBlobStore, proxy: FaultyProxy
) -> None:
    proxy.fail_next(401, {"Content-Type": "text/html"}, times=9, body=b"<html>log in</html>")
    with pytest.raises(PermissionDenied):
        token_store.delete(NAME)


def test_token_that_has_expired_fails_for_now(
    proxy: FaultyProxy,
    azure_container: str,
    azure_client: None,
    azure_tokens: Entra,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        azure_tokens, "token", lambda who, what: Entra.token(azure_tokens, who, what, -10)
    )
    with pytest.raises(TransientError, match="does not take the token any more"):
        put(AzureBlobStore(azure_container), NAME)


def test_token_for_something_else_is_told(
    proxy: FaultyProxy,
    azure_container: str,
    azure_client: None,
    azure_tokens: Entra,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        azure_tokens, "token", lambda who, _: Entra.token(azure_tokens, who, "https://example.com")
    )
    with pytest.raises(OperatorError, match="does not accept the credentials"):
        put(AzureBlobStore(azure_container), NAME)


# --- Refusals ---


@pytest.mark.parametrize("code", ["AuthorizationPermissionMismatch", "AuthorizationFailure"])
@pytest.mark.parametrize(
    ("call", "action"),
    [("exists", "read"), ("open", "read"), ("delete", "delete"), ("put", "write")],
)
def test_refusal_names_action_resource_and_role(
    store: AzureBlobStore, proxy: FaultyProxy, call: str, action: str, code: str
) -> None:
    headers, body = error_of(code)
    proxy.fail_next(403, headers, times=9, body=body)
    with pytest.raises(PermissionDenied) as raised:
        (SINGLE | {"put": put})[call](store, NAME)
    error = raised.value
    assert error.message.startswith(f"Azure denies {ACTIONS}/{action} on {store.container}: ")
    assert code in error.message
    assert (error.action, error.resource) == (f"{ACTIONS}/{action}", store.container)
    assert "'Storage Blob Data Contributor'" in error.hint
    assert "network rules" in error.hint
    assert len(proxy.requests) == 1
