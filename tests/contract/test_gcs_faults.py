"""How the store in a bucket of Google Cloud Storage bears a network, a storage and a token server
that fail.
"""

import gc
import json
import os
from collections.abc import Callable, Iterator

import pytest

from google_token_server import GoogleServer
from http_faults import FaultyProxy
from imagemill.clouds import gcp
from imagemill.errors import OperatorError, ServiceUnreachable, TransientError
from imagemill.objects import gcs, store_for
from imagemill.objects.names import UPLOAD_TRIES
from imagemill.ports import ContextStore
from servers import free_port

NAME = f"{'0' * 64}.tar.gz"
PIECE = 256 * 1024
CONTENT = os.urandom(4 * PIECE + 1000)
PIECES = 5
SENDS = "^PUT .*upload_id="
SINGLE: dict[str, Callable[[ContextStore], object]] = {
    "exists": lambda store: store.exists(NAME),
    "open": lambda store: get(store),
    "delete": lambda store: store.delete(NAME),
}


def put(store: ContextStore, content: bytes = CONTENT) -> None:
    with store.create(NAME) as stream:
        for start in range(0, len(content), 100_000):
            stream.write(content[start : start + 100_000])


def get(store: ContextStore) -> bytes:
    with store.open(NAME) as stream:
        return stream.read()


@pytest.fixture
def store(gcs_proxy: FaultyProxy, gcs_bucket: str, monkeypatch: pytest.MonkeyPatch) -> ContextStore:
    monkeypatch.setattr(gcs, "PIECE", PIECE)
    return store_for(f"gs://{gcs_bucket}")


class TestSingleCalls:
    @pytest.mark.parametrize("call", SINGLE)
    @pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
    def test_failing_server_is_asked_once(
        self, store: ContextStore, gcs_proxy: FaultyProxy, call: str, status: int
    ) -> None:
        gcs_proxy.fail_next(status, {"Retry-After": "7"}, times=100)
        with pytest.raises(ServiceUnreachable) as raised:
            SINGLE[call](store)
        assert len(gcs_proxy.requests) == 1
        assert (raised.value.retry_after, raised.value.exhausted) == (7, False)
        assert f"with {status}" in raised.value.message

    @pytest.mark.parametrize("call", SINGLE)
    def test_too_many_requests_say_when_to_ask_again(
        self, store: ContextStore, gcs_proxy: FaultyProxy, call: str
    ) -> None:
        gcs_proxy.fail_next(429, {"Retry-After": "120"}, times=100)
        with pytest.raises(TransientError, match="too many requests") as raised:
            SINGLE[call](store)
        assert len(gcs_proxy.requests) == 1
        assert (raised.value.retry_after, raised.value.exhausted) == (120, False)

    @pytest.mark.parametrize("reason", ["rateLimitExceeded", "userRateLimitExceeded"])
    def test_limit_of_requests_may_look_like_a_missing_permission(
        self, store: ContextStore, gcs_proxy: FaultyProxy, reason: str
    ) -> None:
        error = {"code": 403, "message": "Rate limit exceeded", "errors": [{"reason": reason}]}
        gcs_proxy.fail_next(
            403, {"Content-Type": "application/json"}, body=json.dumps({"error": error}).encode()
        )
        with pytest.raises(TransientError, match="too many requests"):
            store.exists(NAME)

    @pytest.mark.parametrize("call", SINGLE)
    def test_broken_connection_is_unreachable(
        self, store: ContextStore, gcs_proxy: FaultyProxy, call: str
    ) -> None:
        gcs_proxy.reset_next(times=100)
        with pytest.raises(ServiceUnreachable, match="did not answer"):
            SINGLE[call](store)
        assert len(gcs_proxy.requests) == 1

    def test_closed_port_is_unreachable(
        self, fresh_google: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free_port()}")
        with pytest.raises(
            ServiceUnreachable,
            match=r"storage\.objects\.get on projects/_/buckets/a-b: Connection refused",
        ):
            store_for("gs://a-b").exists(NAME)

    def test_silent_server_is_unreachable(
        self, store: ContextStore, gcs_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(gcs._ASKED, "timeout", (0.2, 0.2))
        gcs_proxy.delay(3600)
        with pytest.raises(ServiceUnreachable, match="no answer in time"):
            store.exists(NAME)


class TestUploads:
    @pytest.mark.parametrize("match", ["^POST ", SENDS])
    @pytest.mark.parametrize("status", [429, 503])
    def test_storm_that_ends_is_weathered(
        self, store: ContextStore, gcs_proxy: FaultyProxy, match: str, status: int
    ) -> None:
        gcs_proxy.fail_next(status, times=UPLOAD_TRIES - 1, match=match)
        put(store)
        assert len(gcs_proxy.requests) == 1 + PIECES + UPLOAD_TRIES - 1
        assert get(store) == CONTENT

    @pytest.mark.parametrize("match", ["^POST ", SENDS])
    @pytest.mark.parametrize("status", [429, 503])
    def test_storm_that_does_not_end_is_given_up_for_good(
        self, store: ContextStore, gcs_proxy: FaultyProxy, match: str, status: int
    ) -> None:
        gcs_proxy.fail_next(status, times=100, match=match)
        with pytest.raises(TransientError) as raised:
            put(store)
        assert gcs_proxy.asked(match) == UPLOAD_TRIES
        assert raised.value.exhausted
        gcs_proxy.clear()
        assert not store.exists(NAME)

    def test_each_piece_has_all_tries(self, store: ContextStore, gcs_proxy: FaultyProxy) -> None:
        def failing() -> Iterator[bytes]:
            for start in range(0, len(CONTENT), PIECE):
                gcs_proxy.fail_next(503, times=UPLOAD_TRIES - 1, match=SENDS)
                yield CONTENT[start : start + PIECE]

        with store.create(NAME) as stream:
            for piece in failing():
                stream.write(piece)
        assert gcs_proxy.asked(SENDS) == PIECES * UPLOAD_TRIES
        assert get(store) == CONTENT

    def test_wait_that_the_server_asks_for_is_kept_within_reason(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gcs, "UPLOAD_WAITS", (0.001, 50.0))
        tries = gcs._Tries()
        waits = tries.waits()
        assert tries.again(gcp.TokenUnavailableError("limit", retry_after=7))
        assert next(waits) == 7
        assert tries.again(gcp.TokenUnavailableError("limit", retry_after=3600))
        assert next(waits) == 50
        assert tries.again(gcp.TokenUnavailableError("limit"))
        assert next(waits) < 1

    @pytest.mark.parametrize("after", [0, 1000, PIECE - 1])
    def test_reset_in_the_middle_of_a_piece_is_weathered(
        self, store: ContextStore, gcs_proxy: FaultyProxy, after: int
    ) -> None:
        gcs_proxy.reset_next(after_bytes=after, times=2, match=SENDS)
        put(store)
        assert get(store) == CONTENT

    def test_piece_that_the_server_took_twice_does_not_stay(
        self, store: ContextStore, gcs_proxy: FaultyProxy
    ) -> None:
        """Google knows a piece by its place when it is sent again for want of an answer; this
        server does not.
        """
        gcs_proxy.reset_next(after_bytes=PIECE + 1, match=SENDS)  # its answer
        with pytest.raises(TransientError, match="damaged on its way"):
            put(store)
        assert not store.exists(NAME)

    def test_slow_network_is_only_slow(self, store: ContextStore, gcs_proxy: FaultyProxy) -> None:
        gcs_proxy.delay(0.05)
        put(store)
        assert get(store) == CONTENT

    @pytest.mark.parametrize("status", [404, 410])
    def test_upload_that_the_server_has_forgotten_begins_anew(
        self, store: ContextStore, gcs_proxy: FaultyProxy, status: int
    ) -> None:
        gcs_proxy.fail_next(status, times=100, match=SENDS)
        with pytest.raises(TransientError, match="has forgotten the upload") as raised:
            put(store)
        assert gcs_proxy.asked(SENDS) == 1
        assert not raised.value.exhausted
        gcs_proxy.clear()
        put(store)
        assert get(store) == CONTENT

    def test_upload_that_failed_is_not_ended_by_the_collection_of_garbage(
        self, store: ContextStore, gcs_proxy: FaultyProxy
    ) -> None:
        gcs_proxy.fail_next(410, match=SENDS)
        with pytest.raises(TransientError):
            put(store)
        gc.collect()
        assert gcs_proxy.asked(SENDS) == 1
        assert not store.exists(NAME)

    @pytest.mark.parametrize("content", [b"small", CONTENT])
    def test_what_was_damaged_on_its_way_is_not_kept(
        self, store: ContextStore, gcs_proxy: FaultyProxy, content: bytes
    ) -> None:
        gcs_proxy.corrupt_next(match=SENDS)
        with pytest.raises(TransientError, match="damaged on its way") as raised:
            put(store, content)
        assert not raised.value.exhausted
        assert not store.exists(NAME)

    def test_what_google_itself_finds_damaged_is_sent_again(
        self, store: ContextStore, gcs_proxy: FaultyProxy
    ) -> None:
        message = 'Provided CRC32C "AAAAAA==" doesn\'t match calculated CRC32C "AAAAAB==".'
        body = json.dumps({"error": {"code": 400, "message": message}}).encode()
        gcs_proxy.fail_next(400, {"Content-Type": "application/json"}, match=SENDS, body=body)
        with pytest.raises(TransientError, match="damaged on its way") as raised:
            put(store, b"small")
        assert not raised.value.exhausted
        assert gcs_proxy.asked(SENDS) == 1

    def test_address_of_an_upload_is_told_to_nobody(
        self, store: ContextStore, gcs_proxy: FaultyProxy
    ) -> None:
        gcs_proxy.reset_next(times=100, match=SENDS)
        with pytest.raises(TransientError) as raised:
            put(store)
        error: BaseException | None = raised.value
        assert "upload_id" not in str(error)
        assert error is not None
        assert error.__cause__ is None
        assert error.__suppress_context__


class TestDownloads:
    def test_damaged_object_is_told_at_its_end(
        self, store: ContextStore, gcs_proxy: FaultyProxy
    ) -> None:
        put(store)
        gcs_proxy.corrupt_next(match="^GET .*alt=media")
        with pytest.raises(TransientError, match="damaged on its way"):
            get(store)

    def test_damage_is_told_to_who_reads_just_to_the_last_byte(
        self, store: ContextStore, gcs_proxy: FaultyProxy
    ) -> None:
        put(store)
        gcs_proxy.corrupt_next(match="^GET .*alt=media")
        with store.open(NAME) as stream, pytest.raises(TransientError, match="damaged on its way"):
            stream.read(len(CONTENT))

    def test_broken_download_is_told_and_not_taken_for_the_end(
        self, store: ContextStore, gcs_proxy: FaultyProxy
    ) -> None:
        put(store)
        gcs_proxy.reset_next(after_bytes=300_000, match="^GET .*alt=media")
        with pytest.raises(ServiceUnreachable):
            get(store)
        assert gcs_proxy.asked("^GET .*alt=media") == 1


class TestTokens:
    """With credentials: an endpoint that is no emulator."""

    @pytest.fixture
    def guarded(
        self,
        store: ContextStore,
        gcs_proxy: FaultyProxy,
        service_account: GoogleServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> ContextStore:
        monkeypatch.delenv("STORAGE_EMULATOR_HOST")
        monkeypatch.setenv("API_ENDPOINT_OVERRIDE", gcs_proxy.url)
        return store

    def test_token_that_ends_in_the_middle_of_an_upload_is_renewed(
        self, guarded: ContextStore, gcs_proxy: FaultyProxy, service_account: GoogleServer
    ) -> None:
        with guarded.create(NAME) as stream:
            stream.write(CONTENT[: 2 * PIECE])
            assert service_account.requests == ["POST /token"]
            gcs_proxy.fail_next(401, match=SENDS)
            stream.write(CONTENT[2 * PIECE :])
        assert service_account.requests == ["POST /token"] * 2
        assert get(guarded) == CONTENT

    def test_token_that_is_never_accepted_is_an_error_of_the_operator(
        self, guarded: ContextStore, gcs_proxy: FaultyProxy
    ) -> None:
        gcs_proxy.fail_next(401, times=100)
        with pytest.raises(
            OperatorError, match="does not accept the worker's credentials"
        ) as raised:
            guarded.exists(NAME)
        assert len(gcs_proxy.requests) == 2
        assert "GOOGLE_APPLICATION_CREDENTIALS" in raised.value.hint

    def test_token_server_that_fails_in_the_middle_of_an_upload_is_weathered(
        self, guarded: ContextStore, gcs_proxy: FaultyProxy, service_account: GoogleServer
    ) -> None:
        service_account.failures.append((503, {}, ""))
        put(guarded)
        assert service_account.requests == ["POST /token"] * 2
        assert get(guarded) == CONTENT

    def test_token_server_that_fails_is_asked_once_for_a_single_call(
        self, guarded: ContextStore, gcs_proxy: FaultyProxy, service_account: GoogleServer
    ) -> None:
        service_account.failures += [(503, {"Retry-After": "9"}, "")] * 9
        with pytest.raises(ServiceUnreachable) as raised:
            guarded.exists(NAME)
        assert service_account.requests == ["POST /token"]
        assert raised.value.retry_after == 9
        assert not gcs_proxy.requests
