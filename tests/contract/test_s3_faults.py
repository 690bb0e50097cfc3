"""The store in a bucket while its server, or the network, fails: who tries again how often, and
what is left.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from botocore.retries.standard import ExponentialBackoff

import aws_servers
from http_faults import FaultyProxy
from imagemill.clouds import aws
from imagemill.errors import PermissionDenied, ServiceUnreachable, TransientError
from imagemill.objects.names import UPLOAD_TRIES
from imagemill.ports import ContextStore

NAME = "context.tar.gz"
PARTS = os.urandom(1 << 20) * 25
"""Three parts of an upload."""

PART = r"PUT .*partNumber="
SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
ABORTED = b"<Error><Code>OperationAborted</Code><Message>A conflicting operation is in progress.</Message></Error>"
EXPIRED = (
    b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
)


def put(store: ContextStore, content: bytes) -> None:
    with store.create(NAME) as stream:
        stream.write(content)


def get(store: ContextStore) -> bytes:
    with store.open(NAME) as stream:
        return stream.read()


@pytest.fixture
def store(s3_proxy: FaultyProxy, s3_store: ContextStore) -> ContextStore:
    """A store whose requests go through the proxy."""
    return s3_store


SINGLE: list[Callable[[ContextStore], object]] = [
    lambda store: store.exists(NAME),
    lambda store: get(store),
    lambda store: store.delete(NAME),
]


class TestSingleCalls:
    """They are sent once: it is the step that tries again."""

    @pytest.mark.parametrize("call", SINGLE, ids=["exists", "open", "delete"])
    @pytest.mark.parametrize("status", [408, 500, 503])
    def test_failing_one_is_sent_once(
        self,
        store: ContextStore,
        s3_proxy: FaultyProxy,
        call: Callable[[ContextStore], object],
        status: int,
    ) -> None:
        s3_proxy.fail_next(status, times=100)
        with pytest.raises(ServiceUnreachable) as raised:
            call(store)
        assert len(s3_proxy.requests) == 1
        assert not raised.value.exhausted

    @pytest.mark.parametrize("status", [408, 503])
    def test_failing_question_for_the_checksum_is_sent_once(
        self, store: ContextStore, s3_proxy: FaultyProxy, status: int
    ) -> None:
        put(store, b"content")
        s3_proxy.fail_next(status, times=100, match="HEAD")
        with pytest.raises(ServiceUnreachable) as raised:
            store.exists(NAME)
        assert s3_proxy.asked("HEAD") == 1
        assert not raised.value.exhausted

    @pytest.mark.parametrize("call", SINGLE, ids=["exists", "open", "delete"])
    def test_one_that_is_reset_is_sent_once(
        self, store: ContextStore, s3_proxy: FaultyProxy, call: Callable[[ContextStore], object]
    ) -> None:
        s3_proxy.reset_next(times=100)
        with pytest.raises(ServiceUnreachable):
            call(store)
        assert len(s3_proxy.requests) == 1

    @pytest.mark.parametrize(("status", "body"), [(429, b""), (503, SLOW_DOWN)])
    def test_throttling_says_how_long_to_wait(
        self, store: ContextStore, s3_proxy: FaultyProxy, status: int, body: bytes
    ) -> None:
        s3_proxy.fail_next(status, {"Retry-After": "17"}, body=body)
        with pytest.raises(TransientError, match="too many requests") as raised:
            store.exists(NAME)
        assert raised.value.retry_after == 17
        assert len(s3_proxy.requests) == 1

    def test_server_that_is_silent_is_given_up(
        self, store: ContextStore, s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(aws, "READ_TIMEOUT", 0.3)
        aws.forget()
        s3_proxy.delay(60)
        with pytest.raises(ServiceUnreachable, match="timeout"):
            store.exists(NAME)
        s3_proxy.delay(0)
        assert len(s3_proxy.requests) == 1


class TestUploads:
    @pytest.mark.parametrize("status", [500, 503])
    def test_storm_is_ridden_out(
        self, store: ContextStore, s3_proxy: FaultyProxy, status: int
    ) -> None:
        s3_proxy.fail_next(status, times=4)
        put(store, PARTS)
        assert get(store) == PARTS

    def test_throttling_in_the_middle_is_ridden_out(
        self, store: ContextStore, s3_proxy: FaultyProxy
    ) -> None:
        s3_proxy.fail_next(429, {"Retry-After": "1"}, times=2, match=f"{PART}2")
        put(store, PARTS)
        assert s3_proxy.asked(f"{PART}2") == 3
        assert get(store) == PARTS

    @pytest.mark.parametrize(("status", "body"), [(408, b""), (409, ABORTED)])
    def test_what_the_sdk_does_not_send_again_is_left_to_the_step(
        self,
        store: ContextStore,
        s3_proxy: FaultyProxy,
        assert_nothing_is_left: Callable[[], None],
        status: int,
        body: bytes,
    ) -> None:
        s3_proxy.fail_next(status, match=f"{PART}2", body=body)
        with pytest.raises(ServiceUnreachable) as raised:
            put(store, PARTS)
        assert s3_proxy.asked(f"{PART}2") == 1
        assert not raised.value.exhausted
        assert_nothing_is_left()
        put(store, PARTS)
        assert get(store) == PARTS

    def test_resets_in_the_middle_are_ridden_out(
        self, store: ContextStore, s3_proxy: FaultyProxy
    ) -> None:
        s3_proxy.reset_next(after_bytes=5 << 20, times=3, match=f"{PART}[12]")
        put(store, PARTS)
        assert get(store) == PARTS
        assert s3_proxy.asked(PART) == 6

    def test_latency_is_borne(self, store: ContextStore, s3_proxy: FaultyProxy) -> None:
        s3_proxy.delay(0.2)
        put(store, PARTS)
        assert get(store) == PARTS

    def test_part_is_sent_as_often_as_documented_and_then_not_again(
        self, store: ContextStore, s3_proxy: FaultyProxy, assert_nothing_is_left: Callable[[], None]
    ) -> None:
        s3_proxy.fail_next(500, times=100, match=f"{PART}2")
        with pytest.raises(ServiceUnreachable) as raised:
            put(store, PARTS)
        assert s3_proxy.asked(f"{PART}2") == UPLOAD_TRIES
        assert raised.value.exhausted
        assert_nothing_is_left()

    def test_small_object_is_sent_as_often(
        self, store: ContextStore, s3_proxy: FaultyProxy
    ) -> None:
        s3_proxy.reset_next(times=100, match="PUT")
        with pytest.raises(ServiceUnreachable) as raised:
            put(store, b"small")
        assert s3_proxy.asked("PUT") == UPLOAD_TRIES
        assert raised.value.exhausted

    @pytest.mark.parametrize("fault", ["answer", "reset"])
    def test_each_upload_has_all_tries_however_many_have_failed(
        self,
        store: ContextStore,
        s3_proxy: FaultyProxy,
        monkeypatch: pytest.MonkeyPatch,
        fault: str,
    ) -> None:
        monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)
        for _ in range(10):
            s3_proxy.clear()
            if fault == "answer":
                s3_proxy.fail_next(503, times=100)
            else:
                s3_proxy.reset_next(times=100)
            with pytest.raises(ServiceUnreachable) as raised:
                put(store, b"small")
            assert len(s3_proxy.requests) == UPLOAD_TRIES
            assert raised.value.exhausted
        s3_proxy.clear()
        s3_proxy.fail_next(503, times=UPLOAD_TRIES - 1)
        put(store, b"small")
        assert get(store) == b"small"

    def test_writer_is_told_while_it_writes(
        self, store: ContextStore, s3_proxy: FaultyProxy, assert_nothing_is_left: Callable[[], None]
    ) -> None:
        def endless() -> None:
            with store.create(NAME) as stream:
                while True:
                    stream.write(PARTS[: 1 << 20])

        s3_proxy.fail_next(
            403, times=100, match=PART, body=b"<Error><Code>AccessDenied</Code></Error>"
        )
        with pytest.raises(PermissionDenied, match="AWS refuses s3:PutObject"):
            endless()
        assert_nothing_is_left()

    @pytest.mark.parametrize(
        "match", ["POST .*uploads", PART, "POST .*uploadId"], ids=["begin", "part", "end"]
    )
    def test_token_that_ends_in_the_middle_lets_the_step_try_again(
        self,
        store: ContextStore,
        s3_proxy: FaultyProxy,
        assert_nothing_is_left: Callable[[], None],
        match: str,
    ) -> None:
        s3_proxy.fail_next(400, match=match, body=EXPIRED)
        with pytest.raises(TransientError, match="credentials have ended") as raised:
            put(store, PARTS)
        assert not raised.value.exhausted
        assert_nothing_is_left()
        put(store, PARTS)
        assert get(store) == PARTS

    def test_credentials_are_looked_for_anew_once_they_have_ended(
        self, store: ContextStore, s3_proxy: FaultyProxy, s3_keys: pytest.MonkeyPatch
    ) -> None:
        put(store, b"content")
        s3_keys.setenv("AWS_ACCESS_KEY_ID", aws_servers.READER[0])
        s3_keys.setenv("AWS_SECRET_ACCESS_KEY", aws_servers.READER[1])
        store.delete(NAME)  # with the earlier ones, which may
        s3_proxy.fail_next(400, body=EXPIRED)
        with pytest.raises(TransientError, match="credentials have ended"):
            store.exists(NAME)
        with pytest.raises(PermissionDenied, match="AWS refuses s3:DeleteObject"):
            store.delete(NAME)

    @pytest.mark.parametrize("content", [b"small", PARTS], ids=["small", "in parts"])
    def test_damage_on_the_way_is_not_stored(
        self,
        store: ContextStore,
        s3_proxy: FaultyProxy,
        assert_nothing_is_left: Callable[[], None],
        content: bytes,
    ) -> None:
        s3_proxy.corrupt_next(match="PUT")
        with pytest.raises(TransientError, match="did not arrive"):
            put(store, content)
        assert_nothing_is_left()

    def test_checksum_of_the_whole_is_compared_by_the_server(
        self,
        store: ContextStore,
        assert_nothing_is_left: Callable[[], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("imagemill.objects.s3.crc32", lambda data, value: 1)
        with pytest.raises(TransientError, match="BadDigest"):
            put(store, PARTS)
        assert_nothing_is_left()

    @pytest.fixture
    def assert_nothing_is_left(
        self, store: ContextStore, s3_bucket: str, s3_admin: Any
    ) -> Callable[[], None]:
        """Fails if there is an object, or an upload that was not ended."""

        def check() -> None:
            assert not store.exists(NAME)
            assert "Uploads" not in s3_admin.list_multipart_uploads(Bucket=s3_bucket)

        return check


class TestDownloads:
    def test_reset_in_the_middle_is_told(self, store: ContextStore, s3_proxy: FaultyProxy) -> None:
        put(store, PARTS)
        s3_proxy.reset_next(after_bytes=5 << 20, match="GET")
        with pytest.raises(ServiceUnreachable):
            get(store)
        assert get(store) == PARTS

    @pytest.mark.parametrize("content", [b"small", PARTS], ids=["small", "in parts"])
    def test_damage_on_the_way_is_told(
        self, store: ContextStore, s3_proxy: FaultyProxy, content: bytes
    ) -> None:
        put(store, content)
        s3_proxy.corrupt_next(match="GET")
        with pytest.raises(TransientError, match="is not what was stored there") as raised:
            get(store)
        assert "delete it" in raised.value.hint
