"""What the store in a bucket of Google Cloud Storage does besides what every store does."""

import base64
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pytest
import urllib3

from gcp_servers import drain
from http_faults import FaultyProxy
from imagemill.errors import OperatorError, PermissionDenied, UserError
from imagemill.objects import check, gcs, store_for
from imagemill.ports import ContextStore

NAME = f"{'0' * 64}.tar.gz"
ACCOUNT = "builder@a-project.iam.gserviceaccount.com"


def put(store: ContextStore, content: bytes, name: str = NAME) -> None:
    with store.create(name) as stream:
        stream.write(content)


def get(store: ContextStore, name: str = NAME) -> bytes:
    with store.open(name) as stream:
        return stream.read()


def refusal(permission: str, kind: str) -> bytes:
    """Storage's words for a permission that is missing."""
    message = (
        f"{ACCOUNT} does not have {permission} access to the Google Cloud Storage {kind}."
        f" Permission '{permission}' denied on resource (or it may not exist)."
    )
    error = {
        "code": 403,
        "message": message,
        "errors": [{"message": message, "domain": "global", "reason": "forbidden"}],
    }
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    "uri",
    [
        "gs://",
        "gs:///prefix",
        "gs://UPPER",
        "gs://a",
        "gs://bucket?x=1",
        "gs://bucket/a#b",
        "gs:bucket",
    ],
)
def test_uri_that_names_no_bucket_is_refused(uri: str) -> None:
    with pytest.raises(UserError) as raised:
        store_for(uri)
    assert raised.value.message == f"{uri!r} is not the URI of a bucket"
    assert raised.value.hint == "write gs://BUCKET or gs://BUCKET/PREFIX"


@pytest.mark.parametrize(
    ("prefix", "key"), [("", ""), ("/", ""), ("/a/b", "a/b/"), ("//a//b/", "a/b/")]
)
def test_objects_lie_below_the_prefix(
    gcs_emulator: None, gcs_server: str, gcs_bucket: str, prefix: str, key: str
) -> None:
    store = store_for(f"gs://{gcs_bucket}{prefix}")
    put(store, b"content")
    assert store.uri(NAME) == f"gs://{gcs_bucket}/{key}{NAME}"
    listed = urllib3.request("GET", f"{gcs_server}/storage/v1/b/{gcs_bucket}/o").json()
    assert [entry["name"] for entry in listed["items"]] == [f"{key}{NAME}"]


def test_object_has_the_checksum_of_what_was_written(
    gcs_store: ContextStore, gcs_server: str, gcs_bucket: str
) -> None:
    content = os.urandom(100_000)
    put(gcs_store, content)
    stored = urllib3.request("GET", f"{gcs_server}/storage/v1/b/{gcs_bucket}/o").json()["items"][0]
    expected = google_crc32c.value(content).to_bytes(4, "big")
    assert base64.b64decode(stored["crc32c"]) == expected
    assert stored["contentType"] == "application/gzip"


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_object_of_several_pieces_is_whole(
    gcs_proxy: FaultyProxy, gcs_bucket: str, monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    monkeypatch.setattr(gcs, "PIECE", 256 * 1024)
    store, content = store_for(f"gs://{gcs_bucket}"), os.urandom(4 * 256 * 1024 + extra)
    with store.create(NAME) as stream:
        for start in range(0, len(content), 100_000):
            stream.write(content[start : start + 100_000])
        stream.flush()
    assert get(store) == content
    assert gcs_proxy.asked("^POST .*uploadType=resumable") == 1
    assert gcs_proxy.asked("^PUT .*upload_id=") == (4 if extra < 0 else 5)


def test_object_is_read_as_a_stream(gcs_store: ContextStore) -> None:
    content = os.urandom(3 << 20)
    put(gcs_store, content)
    with gcs_store.open(NAME) as stream:
        assert stream.read(10) == content[:10]
        assert stream.read(2 << 20) == content[10 : (2 << 20) + 10]
        assert stream.read() == content[(2 << 20) + 10 :]
        assert stream.read(1) == b""


def test_what_is_read_is_one_version_of_the_object(gcs_store: ContextStore) -> None:
    earlier = os.urandom(20 << 20)
    put(gcs_store, earlier)
    with gcs_store.open(NAME) as stream:
        start = stream.read(10)
        put(gcs_store, b"later")
        assert start + stream.read() == earlier


def test_upload_whose_block_raises_is_forgotten(
    gcs_proxy: FaultyProxy, gcs_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs, "PIECE", 256 * 1024)
    store = store_for(f"gs://{gcs_bucket}")

    def fail() -> None:
        with store.create(NAME) as stream:
            stream.write(os.urandom(300 * 1024))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    [put_path] = [path for method, path in gcs_proxy.requests if method == "PUT"]
    assert [path for method, path in gcs_proxy.requests if method == "DELETE"] == [put_path]
    assert not store.exists(NAME)


def test_small_upload_whose_block_raises_was_never_begun(
    gcs_proxy: FaultyProxy, gcs_bucket: str
) -> None:
    def fail() -> None:
        with store_for(f"gs://{gcs_bucket}").create(NAME) as stream:
            stream.write(b"content")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not gcs_proxy.requests


PEAK = """
import sys
from pathlib import Path
from imagemill.objects import store_for
def peak():  # not getrusage's, which begins with what the parent had
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10
"""
UPLOAD = f"""{PEAK}
store, block = store_for("gs://bucket"), bytes(1 << 20)
with store.create("small") as stream:
    stream.write(b"content")
before = peak()
with store.create("large") as stream:
    for _ in range(500):
        stream.write(block)
print(peak() - before)
"""
DOWNLOAD = f"""{PEAK}
with store_for(sys.argv[1]).open("large") as stream:
    before, total = peak(), 0
    while content := stream.read(1 << 20):
        total += len(content)
assert total == 120 << 20
print(peak() - before)
"""


def mebibytes(script: str, *arguments: str) -> int:
    """What the script prints: by how much its memory grew at most."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_memory_of_an_upload_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with drain(tmp_path) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        assert mebibytes(UPLOAD) < 100


def test_memory_of_a_download_is_bounded(
    gcs_emulator: None, gcs_server: str, gcs_bucket: str
) -> None:
    url = f"{gcs_server}/upload/storage/v1/b/{gcs_bucket}/o?uploadType=media&name=large"
    assert urllib3.request("POST", url, body=bytes(120 << 20)).status == 200
    assert mebibytes(DOWNLOAD, f"gs://{gcs_bucket}") < 20


def test_forked_child_opens_connections_of_its_own(gcs_emulator: None, gcs_bucket: str) -> None:
    script = textwrap.dedent("""
        import os, sys
        from imagemill.clouds import gcp
        from imagemill.objects import check, store_for
        store = store_for(sys.argv[1])
        check(store)
        parents = gcp.client()
        child = os.fork()
        check(store)
        assert (gcp.client() is parents) == bool(child)
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            check(store)
    """)
    command = [sys.executable, "-c", script, f"gs://{gcs_bucket}"]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=60)


def test_making_a_store_asks_nobody(monkeypatch: pytest.MonkeyPatch, fresh_google: None) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/is/not/there")
    assert store_for("gs://bucket").uri(NAME) == f"gs://bucket/{NAME}"


# No bucket, no permission


def test_missing_bucket_is_told_and_never_taken_for_empty(gcs_emulator: None) -> None:
    store = store_for("gs://is-not-there")
    attempts: list[Callable[[], object]] = [
        lambda: store.exists(NAME),
        lambda: get(store),
        lambda: store.delete(NAME),
        lambda: put(store, b""),
        lambda: check(store),
    ]
    for attempt in attempts:
        with pytest.raises(UserError, match="Google Cloud has no projects/_/buckets/is-not-there"):
            attempt()


@pytest.mark.parametrize(
    ("method", "permission", "kind"),
    [
        ("POST", "storage.objects.create", "object"),
        ("GET", "storage.objects.get", "object"),
        ("DELETE", "storage.objects.delete", "object"),
    ],
)
def test_refused_permission_is_named_with_its_bucket(
    gcs_proxy: FaultyProxy, gcs_bucket: str, method: str, permission: str, kind: str
) -> None:
    store = store_for(f"gs://{gcs_bucket}")
    attempts: dict[str, list[Callable[[], object]]] = {
        "POST": [lambda: put(store, b"content")],
        "GET": [lambda: store.exists(NAME), lambda: get(store)],
        "DELETE": [lambda: store.delete(NAME)],
    }
    for attempt in attempts[method]:
        gcs_proxy.clear()
        headers = {"Content-Type": "application/json"}
        gcs_proxy.fail_next(
            403, headers, times=100, match=f"^{method} ", body=refusal(permission, kind)
        )
        with pytest.raises(PermissionDenied) as raised:
            attempt()
        error = raised.value
        assert (error.action, error.resource) == (permission, f"projects/_/buckets/{gcs_bucket}")
        assert (
            f"No permission {permission} on projects/_/buckets/{gcs_bucket}: 403 {ACCOUNT} "
            in error.message
        )
        assert permission in error.hint
        assert len(gcs_proxy.requests) == 1, "a refusal is not tried again"


def test_missing_object_is_absent_without_the_permission_to_list(
    gcs_proxy: FaultyProxy, gcs_bucket: str
) -> None:
    """Of the permissions on objects, get, create and delete suffice."""
    store = store_for(f"gs://{gcs_bucket}")
    body = refusal("storage.objects.list", "bucket")
    gcs_proxy.fail_next(403, {"Content-Type": "application/json"}, times=3, body=body)
    assert not store.exists(NAME)
    with pytest.raises(FileNotFoundError):
        get(store)
    store.delete(NAME)


def test_missing_object_is_absent_without_the_permission_to_see_the_bucket(
    gcs_proxy: FaultyProxy, gcs_bucket: str
) -> None:
    message = f"No such object: {gcs_bucket}/{NAME}"
    body = json.dumps({"error": {"code": 404, "message": message}}).encode()
    gcs_proxy.fail_next(404, {"Content-Type": "application/json"}, body=body)
    assert not store_for(f"gs://{gcs_bucket}").exists(NAME)
    assert len(gcs_proxy.requests) == 1


def test_object_without_a_checksum_does_not_count(gcs_proxy: FaultyProxy, gcs_bucket: str) -> None:
    store = store_for(f"gs://{gcs_bucket}")
    gcs_proxy.fail_next(
        200, {"Content-Type": "application/json"}, body=b'{"name": "x", "size": "1"}'
    )
    assert not store.exists(NAME)
    gcs_proxy.fail_next(200, {"Content-Length": "1"}, body=b"x")
    with pytest.raises(OperatorError, match="gives no checksum"):
        get(store)
