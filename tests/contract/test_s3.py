"""The store in a bucket, on a server that checks signatures: checksums, permissions, and what is
not there.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aws_fixtures
import aws_servers
from http_faults import FaultyProxy
from imagemill.clouds import aws
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    UserError,
)
from imagemill.objects import check, store_for
from imagemill.ports import ContextStore

NAME = f"{'0' * 64}.tar.gz"
PARTS = os.urandom(1 << 20) * 25
"""More than two parts of an upload."""


def put(store: ContextStore, content: bytes) -> None:
    with store.create(NAME) as stream:
        stream.write(content)


def get(store: ContextStore) -> bytes:
    with store.open(NAME) as stream:
        return stream.read()


def attempts(store: ContextStore) -> dict[str, Callable[[], object]]:
    """All that one does to a store, by the permission that it needs."""
    return {
        "s3:ListBucket": lambda: store.exists(NAME),
        "s3:PutObject": lambda: put(store, b"content"),
        "s3:GetObject": lambda: get(store),
        "s3:DeleteObject": lambda: store.delete(NAME),
    }


ACTIONS = ("s3:ListBucket", "s3:PutObject", "s3:GetObject", "s3:DeleteObject")


class TestObjects:
    def test_large_object_comes_back_as_it_was(self, s3_store: ContextStore) -> None:
        put(s3_store, PARTS)
        assert get(s3_store) == PARTS

    @pytest.mark.parametrize("content", [b"", b"small", PARTS], ids=["empty", "small", "in parts"])
    def test_server_has_the_checksum_of_the_whole_object(
        self, s3_store: ContextStore, s3_bucket: str, s3_admin: Any, content: bytes
    ) -> None:
        put(s3_store, content)
        found = s3_admin.head_object(
            Bucket=s3_bucket, Key=f"some/path/{NAME}", ChecksumMode="ENABLED"
        )
        assert found["ContentLength"] == len(content)
        assert (
            "-" not in found["ChecksumCRC32"]
        )  # as it has where it is only that of the parts' checksums

    def test_dropped_upload_leaves_no_parts(
        self, s3_store: ContextStore, s3_bucket: str, s3_admin: Any
    ) -> None:
        def fail() -> None:
            with s3_store.create(NAME) as stream:
                stream.write(PARTS)
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert not s3_store.exists(NAME)
        assert "Uploads" not in s3_admin.list_multipart_uploads(Bucket=s3_bucket)

    @pytest.mark.parametrize("error", [BrokenPipeError, OSError, KeyboardInterrupt])
    def test_block_that_fails_as_an_upload_might_is_dropped_too(
        self, s3_store: ContextStore, error: type[BaseException]
    ) -> None:
        def fail() -> None:
            with s3_store.create(NAME) as stream:
                stream.write(b"the first half")
                raise error

        with pytest.raises(error):
            fail()
        assert not s3_store.exists(NAME)

    def test_object_lies_under_the_path_of_the_uri(self, s3_bucket: str, s3_admin: Any) -> None:
        store = store_for(f"s3://{s3_bucket}/a/b/")
        put(store, b"content")
        assert store.uri(NAME) == f"s3://{s3_bucket}/a/b/{NAME}"
        found = s3_admin.list_objects_v2(Bucket=s3_bucket)["Contents"]
        assert [entry["Key"] for entry in found] == [f"a/b/{NAME}"]

    def test_bucket_alone_is_a_store_too(self, s3_bucket: str) -> None:
        store = store_for(f"s3://{s3_bucket}")
        check(store)
        assert store.uri(NAME) == f"s3://{s3_bucket}/{NAME}"

    def test_name_that_begins_with_anothers_is_another(self, s3_store: ContextStore) -> None:
        with s3_store.create("abc") as stream:
            stream.write(b"content")
        assert s3_store.exists("abc")
        assert not s3_store.exists("ab")

    def test_server_without_checksums_is_met_by_the_sdks_own_setting(
        self, s3_keys: pytest.MonkeyPatch, s3_store: ContextStore, s3_bucket: str, s3_admin: Any
    ) -> None:
        s3_keys.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        aws.forget()
        put(s3_store, PARTS)
        assert get(s3_store) == PARTS
        found = s3_admin.head_object(
            Bucket=s3_bucket, Key=f"some/path/{NAME}", ChecksumMode="ENABLED"
        )
        assert "ChecksumCRC32" not in found
        assert s3_store.exists(NAME)


class TestObjectsOfOthers:
    """What lies where a context would lie, and was not stored by us."""

    def test_object_without_a_checksum_is_not_there(
        self, s3_store: ContextStore, s3_server: str, s3_bucket: str
    ) -> None:
        plain = aws_fixtures.own_client(
            "s3", s3_server, aws_servers.ADMIN, request_checksum_calculation="when_required"
        )
        plain.put_object(Bucket=s3_bucket, Key=f"some/path/{NAME}", Body=b"of somebody else")
        assert not s3_store.exists(NAME)
        put(s3_store, b"content")
        assert s3_store.exists(NAME)
        assert get(s3_store) == b"content"

    def test_checksum_over_the_checksums_of_parts_does_not_count(
        self, s3_store: ContextStore, s3_proxy: FaultyProxy
    ) -> None:
        put(s3_store, b"content")
        s3_proxy.fail_next(
            200, {"x-amz-checksum-crc32": "DUoRhQ==-3", "Content-Length": "7"}, match="HEAD"
        )
        assert not s3_store.exists(NAME)
        assert s3_store.exists(NAME)

    def test_object_that_is_deleted_just_now_is_not_there(
        self, s3_store: ContextStore, s3_proxy: FaultyProxy
    ) -> None:
        put(s3_store, b"content")
        s3_proxy.fail_next(404, match="HEAD")
        assert not s3_store.exists(NAME)


class TestPermissions:
    @pytest.mark.parametrize("action", ACTIONS)
    @pytest.mark.parametrize(
        "keys",
        [(aws_servers.ADMIN[0], "wrong-secret"), ("nobody", "wrong-secret")],
        ids=["secret", "key"],
    )
    def test_wrong_keys_are_told(
        self,
        s3_keys: pytest.MonkeyPatch,
        s3_store: ContextStore,
        keys: tuple[str, str],
        action: str,
    ) -> None:
        aws_fixtures.use_keys(s3_keys, *keys)
        with pytest.raises(OperatorError) as raised:
            attempts(s3_store)[action]()
        assert not isinstance(raised.value, PermissionDenied)
        assert "The AWS credentials are wrong" in raised.value.message
        assert "AWS_SECRET_ACCESS_KEY" in raised.value.hint
        assert "wrong-secret" not in str(raised.value)

    @pytest.mark.parametrize("action", ["s3:PutObject", "s3:DeleteObject"])
    def test_refusal_names_action_and_resource(
        self, s3_keys: pytest.MonkeyPatch, s3_store: ContextStore, s3_bucket: str, action: str
    ) -> None:
        aws_fixtures.use_keys(s3_keys, *aws_servers.READER)
        with pytest.raises(PermissionDenied) as raised:
            attempts(s3_store)[action]()
        resource = f"arn:aws:s3:::{s3_bucket}/some/path/{NAME}"
        assert (raised.value.action, raised.value.resource) == (action, resource)
        assert raised.value.message.startswith(f"AWS refuses {action} on {resource}: AccessDenied")
        assert raised.value.hint == f"allow {action} on {resource} to the identity of the worker"

    def test_reader_sees_what_is_there(
        self, s3_keys: pytest.MonkeyPatch, s3_store: ContextStore
    ) -> None:
        put(s3_store, b"content")
        aws_fixtures.use_keys(s3_keys, *aws_servers.READER)
        assert s3_store.exists(NAME)

    def test_checksum_that_may_not_be_read_is_told_and_never_taken_for_a_missing_object(
        self, s3_store: ContextStore, s3_proxy: FaultyProxy, s3_bucket: str
    ) -> None:
        put(s3_store, b"content")
        s3_proxy.fail_next(403, match="HEAD")
        with pytest.raises(PermissionDenied) as raised:
            s3_store.exists(NAME)
        resource = f"arn:aws:s3:::{s3_bucket}/some/path/{NAME}"
        assert (raised.value.action, raised.value.resource) == ("s3:GetObject", resource)

    def test_upload_in_parts_without_permission_is_refused(
        self, s3_keys: pytest.MonkeyPatch, s3_store: ContextStore
    ) -> None:
        aws_fixtures.use_keys(s3_keys, *aws_servers.READER)
        with pytest.raises(PermissionDenied, match="s3:PutObject"):
            put(s3_store, PARTS)

    @pytest.mark.parametrize("action", ACTIONS)
    def test_missing_credentials_are_told_with_what_was_tried(
        self, aws_environment: pytest.MonkeyPatch, s3_server: str, action: str
    ) -> None:
        aws_environment.setenv("AWS_ENDPOINT_URL_S3", s3_server)
        with pytest.raises(OperatorError) as raised:
            attempts(store_for("s3://bucket/path"))[action]()
        for source in (
            "AWS_ACCESS_KEY_ID",
            "~/.aws/credentials",
            "web identity",
            "the container",
            "of the instance",
        ):
            assert source in raised.value.message
        assert "AWS_SECRET_ACCESS_KEY" in raised.value.hint


PEAK = """
import os, sys
from pathlib import Path
from imagemill.objects import store_for
def peak():  # not getrusage's, which begins with what the parent had
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10
store = store_for(sys.argv[1])
"""
UPLOAD = f"""{PEAK}
with store.create("small") as stream:
    stream.write(b"content")
before, block = peak(), os.urandom(1 << 20)
with store.create("large") as stream:
    for _ in range(200):
        stream.write(block)
print(peak() - before)
"""
DOWNLOAD = f"""{PEAK}
with store.open("large") as stream:
    before, total = peak(), 0
    while content := stream.read(1 << 20):
        total += len(content)
assert total == 200 << 20
print(peak() - before)
"""


def mebibytes(script: str, uri: str) -> int:
    """What the script prints: by how much its memory grew at most."""
    command = [sys.executable, "-c", script, uri]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_memory_of_an_upload_and_a_download_is_bounded(s3_bucket: str) -> None:
    uri = f"s3://{s3_bucket}/some/path"
    assert mebibytes(UPLOAD, uri) < 100
    assert mebibytes(DOWNLOAD, uri) < 20


class TestWhatIsNotThere:
    @pytest.mark.parametrize("action", ACTIONS)
    def test_missing_bucket_is_told_and_never_taken_for_a_missing_object(
        self, s3_keys: pytest.MonkeyPatch, action: str
    ) -> None:
        with pytest.raises(UserError) as raised:
            attempts(store_for("s3://there-is-no-such/path"))[action]()
        assert raised.value.message.startswith("There is no bucket there-is-no-such: NoSuchBucket")
        assert "builder.build-context-store" in raised.value.hint

    @pytest.mark.parametrize("action", ["s3:ListBucket", "s3:PutObject"])
    @pytest.mark.parametrize(
        ("status", "headers", "body"),
        [
            (
                301,
                {"x-amz-bucket-region": "ap-south-1"},
                b"<Error><Code>PermanentRedirect</Code></Error>",
            ),
            (
                400,
                {},
                b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>ap-south-1</Region></Error>",
            ),
        ],
    )
    def test_bucket_in_another_region_is_told_with_its_region(
        self,
        s3_proxy: FaultyProxy,
        s3_store: ContextStore,
        action: str,
        status: int,
        headers: dict[str, str],
        body: bytes,
    ) -> None:
        s3_proxy.fail_next(status, headers, times=10, body=body)
        with pytest.raises(UserError) as raised:
            attempts(s3_store)[action]()
        assert "is in the region ap-south-1" in raised.value.message
        assert "environment.region" in raised.value.hint

    def test_server_that_is_not_there_is_unreachable(self, s3_keys: pytest.MonkeyPatch) -> None:
        s3_keys.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        aws.forget()
        with pytest.raises(ServiceUnreachable, match="Could not connect"):
            store_for("s3://bucket").exists(NAME)


class TestEndpoints:
    @pytest.mark.parametrize(
        ("endpoint", "url"),
        [
            ("http://cwobject.com", "http://bucket.cwobject.com/?"),
            ("http://cwlota.com", "http://bucket.cwlota.com/?"),
            ("http://minio.example.com", "http://minio.example.com/bucket?"),
        ],
    )
    def test_bucket_stands_where_the_service_wants_it(
        self, s3_keys: pytest.MonkeyPatch, endpoint: str, url: str
    ) -> None:
        assert self.asked(s3_keys, endpoint).startswith(url)

    def test_users_own_setting_wins(self, s3_keys: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "aws-config").write_text("[default]\ns3 =\n  addressing_style = virtual\n")
        assert self.asked(s3_keys, "http://minio.example.com").startswith(
            "http://bucket.minio.example.com/?"
        )

    def asked(self, environment: pytest.MonkeyPatch, endpoint: str) -> str:
        """The URL that the SDK asks for, by what a forward proxy is told."""
        with FaultyProxy(endpoint) as proxy:
            proxy.fail_next(200, body=b"<ListBucketResult></ListBucketResult>")
            environment.setenv("AWS_ENDPOINT_URL_S3", endpoint)
            environment.setenv("HTTP_PROXY", proxy.origin)
            aws.forget()
            assert not store_for("s3://bucket").exists(NAME)
            return proxy.requests[0][1]

    def test_endpoint_that_is_no_url_is_told(self, s3_keys: pytest.MonkeyPatch) -> None:
        s3_keys.setenv("AWS_ENDPOINT_URL_S3", "nonsense")
        aws.forget()
        with pytest.raises(OperatorError) as raised:
            store_for("s3://bucket").exists(NAME)
        assert "nonsense" in raised.value.message
        assert "AWS_ENDPOINT_URL_S3" in raised.value.hint


@pytest.mark.parametrize(
    "uri",
    [
        "s3:",
        "s3://",
        "s3:///path",
        "s3://UPPER/path",
        "s3://a",
        "s3://user@bucket/path",
        "s3://bucket/p?q",
        "s3://b:1",
    ],
)
def test_uri_that_names_no_bucket_is_refused(uri: str) -> None:
    with pytest.raises(UserError) as raised:
        store_for(uri)
    assert raised.value.message == f"{uri!r} is not the URI of a bucket"
    assert raised.value.hint == "write s3://BUCKET/PATH"


def test_nothing_is_asked_before_the_store_is_used(aws_environment: pytest.MonkeyPatch) -> None:
    aws_environment.setenv("AWS_PROFILE", "missing")
    store = store_for("s3://bucket/path")
    assert store.uri(NAME) == f"s3://bucket/path/{NAME}"
    with pytest.raises(OperatorError, match="missing"):
        store.exists(NAME)


def test_errors_are_json(s3_keys: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImagemillError) as raised:
        store_for("s3://there-is-no-such").exists(NAME)
    assert json.loads(json.dumps(raised.value.args)) == list(raised.value.args)
