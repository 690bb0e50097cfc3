"""Artifacts in buckets, the same on each cloud's server: archives, folders of objects, versions,
and failures.
"""

import gzip
import hashlib
import io
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
import urllib3
from azure.storage.blob import ContainerClient

import aws_fixtures
import web
from azure_fixtures import KEY, STORAGE, Certificate, Names
from http_faults import FaultyProxy
from imagemill.clouds import aws
from imagemill.errors import (
    BuildCancelled,
    ImagemillError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.ports import Quiet
from imagemill.sources.artifact.source import ArtifactSource
from imagemill.sources.artifact.url import parse
from imagemill.sources.options import SourceOptions
from servers import Server
from web import Request, Response

FILES = {
    "Dockerfile": b"FROM scratch\nCOPY . /\n",
    "app/main.py": b"print()\n",
    "app/data/part": bytes(300_000),
}
OBJECTS = {**FILES, "a b#c%41&é+?=": b"odd", "large": bytes(range(256)) * 12_000, "empty": b""}


@dataclass
class Cloud:
    """A bucket on one cloud's server, which the SDK reaches by a proxy."""

    base: str
    """What stands before a key."""
    put: Callable[[str, bytes], object]
    delete: Callable[[str], object]
    proxy: FaultyProxy
    missing: str
    """The same as `base`, of a bucket that there is not."""
    read: str
    """What reading needs, as the cloud calls it."""
    listed: str
    """What a list needs."""
    refusal: tuple[dict[str, str], bytes]
    """Headers and body of a 403."""


@pytest.fixture(params=["s3", "gs", "azure"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    made: Cloud = request.getfixturevalue(f"{request.param}_cloud")
    made.proxy.clear()
    return made


@pytest.fixture
def s3_cloud(s3_proxy: FaultyProxy, s3_bucket: str, s3_admin: Any) -> Cloud:
    return Cloud(
        f"s3://{s3_bucket}/",
        lambda key, content: s3_admin.put_object(Bucket=s3_bucket, Key=key, Body=content),
        lambda key: s3_admin.delete_object(Bucket=s3_bucket, Key=key),
        s3_proxy,
        "s3://there-is-no-such/",
        "s3:GetObject",
        "s3:ListBucket",
        ({}, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"),
    )


@pytest.fixture
def gs_cloud(gcs_proxy: FaultyProxy, gcs_bucket: str, gcs_server: str) -> Cloud:
    def put(key: str, content: bytes) -> None:
        url = f"{gcs_server}/upload/storage/v1/b/{gcs_bucket}/o?uploadType=media&name={quote(key, safe='')}"
        answer = urllib3.request("POST", url, body=content)
        assert answer.status == 200, answer.data

    def delete(key: str) -> None:
        answer = urllib3.request(
            "DELETE", f"{gcs_server}/storage/v1/b/{gcs_bucket}/o/{quote(key, safe='')}"
        )
        assert answer.status == 200, answer.data

    said = b'{"error": {"code": 403, "message": "nobody@example.org does not have permission"}}'
    return Cloud(
        f"gs://{gcs_bucket}/",
        put,
        delete,
        gcs_proxy,
        "gs://there-is-no-such/",
        "storage.objects.get",
        "storage.objects.list",
        ({"Content-Type": "application/json"}, said),
    )


@pytest.fixture
def azure_cloud(
    azure_container: str,
    azure_client: None,
    azurite: Server,
    azure_names: Names,
    azure_certificate: Certificate,
) -> Iterator[Cloud]:
    client = ContainerClient.from_container_url(azure_container, KEY)
    read = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"
    code = "AuthorizationPermissionMismatch"
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>No.</Message></Error>'
    headers = {"x-ms-error-code": code, "Content-Type": "application/xml"}
    with FaultyProxy(azurite.url, azure_certificate.context()) as proxy, client:
        azure_names.hosts[STORAGE] = int(proxy.origin.rpartition(":")[2])
        yield Cloud(
            f"{azure_container}/",
            lambda key, content: client.upload_blob(key, content, overwrite=True),
            lambda key: client.delete_blob(key),
            proxy,
            f"https://{STORAGE}/there-is-no-such/",
            read,
            read,
            (headers, body.encode()),
        )


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def packed(content: bytes = b"print()\n") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, part in {**FILES, "app/main.py": content}.items():
            info = tarfile.TarInfo(name)
            info.size = len(part)
            archive.addfile(info, io.BytesIO(part))
    return gzip.compress(out.getvalue(), 1, mtime=0)


def contents(top: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in sorted(top.rglob("*"))
        if path.is_file()
    }


def source(text: str, **options: Any) -> ArtifactSource:
    return ArtifactSource(text, SourceOptions(**options))


def fails(made: ArtifactSource, scratch: Path, kind: type[ImagemillError]) -> ImagemillError:
    with pytest.raises(ImagemillError) as raised:
        made.fetch(scratch, Quiet())
    assert type(raised.value) is kind, raised.value
    return raised.value


class TestArchives:
    @pytest.mark.parametrize("key", ["a.tar.gz", "some/folder/a b#c%41é+?=&.tgz"])
    def test_archive_is_fetched_by_one_request(self, cloud: Cloud, scratch: Path, key: str) -> None:
        cloud.put(key, packed())
        cloud.proxy.clear()
        top = source(f"{cloud.base}{quote(key)}").fetch(scratch, Quiet())
        assert contents(top) == FILES
        assert list(scratch.iterdir()) == [top]
        assert len(cloud.proxy.requests) == 1

    def test_archive_of_several_pieces_is_fetched(self, cloud: Cloud, scratch: Path) -> None:
        content = hashlib.shake_256(b"").digest(5 << 20)
        cloud.put("a", packed(content))
        assert contents(source(f"{cloud.base}a").fetch(scratch, Quiet()))["app/main.py"] == content

    def test_sha256_is_compared(self, cloud: Cloud, scratch: Path) -> None:
        cloud.put("a", packed())
        right, wrong = hashlib.sha256(packed()).hexdigest(), "0" * 64
        assert contents(source(f"{cloud.base}a#sha256={right}").fetch(scratch, Quiet())) == FILES
        error = fails(source(f"{cloud.base}a#sha256={wrong}"), scratch / "wrong", UserError)
        assert (
            error.message == f"The archive {cloud.base}a has the SHA-256 {right}, and not {wrong}"
        )
        assert contents(scratch / "wrong") == {}

    def test_object_that_is_not_there_is_told(self, cloud: Cloud, scratch: Path) -> None:
        for attempt in (
            source(f"{cloud.base}a").pinned,
            lambda step: source(f"{cloud.base}a").fetch(scratch, step),
        ):
            with pytest.raises(UserError) as raised:
                attempt(Quiet())
            assert raised.value.message.startswith(
                f"There is no {cloud.base}a, as far as the worker may see: "
            )
            assert raised.value.hint.startswith("check its spelling")

    def test_bucket_that_is_not_there_is_told(self, cloud: Cloud, scratch: Path) -> None:
        for text in (f"{cloud.missing}a", cloud.missing):
            error = fails(source(text), scratch, UserError)
            assert error.message.startswith(f"There is no {text}, as far as the worker may see: ")

    def test_archive_that_is_too_large_is_refused(self, cloud: Cloud, scratch: Path) -> None:
        cloud.put("a", bytes(3 << 20))
        error = fails(source(f"{cloud.base}a", max_bytes=2 << 20), scratch, UserError)
        assert error.message == f"{cloud.base}a has more than 2,097,152 bytes"

    def test_fetch_ends_when_the_build_is_cancelled(self, gs_cloud: Cloud, scratch: Path) -> None:
        class Cancelled(Quiet):
            def check(self) -> None:
                raise BuildCancelled("stop")

        gs_cloud.put("a", packed())
        for text in (f"{gs_cloud.base}a", gs_cloud.base):
            with pytest.raises(BuildCancelled):
                source(text).fetch(scratch, Cancelled())

    def test_archive_that_leads_out_is_refused(self, gs_cloud: Cloud, scratch: Path) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("../out"))
        gs_cloud.put("a", out.getvalue())
        error = fails(source(f"{gs_cloud.base}a"), scratch, UserError)
        assert error.message.startswith(f"The archive {gs_cloud.base}a is not safe to unpack: ")


class TestPinned:
    def test_object_is_pinned_to_its_version_by_one_request(
        self, cloud: Cloud, scratch: Path
    ) -> None:
        cloud.put("a", packed())
        cloud.proxy.clear()
        pinned = source(f"{cloud.base}a#subdirectory=app").pinned(Quiet())
        assert len(cloud.proxy.requests) == 1
        assert pinned is not None
        assert parse(pinned).version
        assert str(parse(pinned)) == pinned
        assert source(pinned).pinned(Quiet()) == pinned
        assert sorted(contents(source(pinned).fetch(scratch, Quiet()))) == ["data/part", "main.py"]
        assert len(cloud.proxy.requests) == 2

    def test_object_that_has_changed_since_is_refused(self, cloud: Cloud, scratch: Path) -> None:
        cloud.put("a", packed())
        pinned = source(f"{cloud.base}a").pinned(Quiet())
        assert pinned is not None
        cloud.put("a", packed(b"changed"))
        error = fails(source(pinned), scratch, UserError)
        assert (
            error.message
            == f"{cloud.base}a has changed since it was {parse(pinned).version}, or was removed"
        )
        assert source(f"{cloud.base}a").pinned(Quiet()) != pinned
        cloud.delete("a")
        assert re.search(
            "There is no|or was removed", fails(source(pinned), scratch, UserError).message
        )

    def test_sha256_pins_by_itself(self, gs_cloud: Cloud) -> None:
        text = f"{gs_cloud.missing}a#sha256={'0' * 64}"
        assert source(text).pinned(Quiet()) == text
        assert gs_cloud.proxy.requests == []

    def test_folder_of_objects_cannot_be_pinned(self, gs_cloud: Cloud) -> None:
        assert source(gs_cloud.missing).pinned(Quiet()) is None
        assert gs_cloud.proxy.requests == []


class TestFolders:
    def test_all_objects_below_the_prefix_are_the_files(self, cloud: Cloud, scratch: Path) -> None:
        for key, content in OBJECTS.items():
            cloud.put(f"some/prefix/{key}", content)
        cloud.put("some/prefixes", b"another")
        cloud.put("some/other", b"another")
        assert contents(source(f"{cloud.base}some/prefix/").fetch(scratch, Quiet())) == OBJECTS

    def test_whole_bucket_is_a_folder_too(self, cloud: Cloud, scratch: Path) -> None:
        for key, content in FILES.items():
            cloud.put(key, content)
        assert contents(source(cloud.base.rstrip("/")).fetch(scratch, Quiet())) == FILES

    def test_subdirectory_is_the_top(self, gs_cloud: Cloud, scratch: Path) -> None:
        for key, content in FILES.items():
            gs_cloud.put(f"p/{key}", content)
        top = source(f"{gs_cloud.base}p/#subdirectory=app").fetch(scratch, Quiet())
        assert sorted(contents(top)) == ["data/part", "main.py"]

    def test_files_are_as_unpacked_ones(self, gs_cloud: Cloud, scratch: Path) -> None:
        gs_cloud.put("p/a", b"1")
        top = source(f"{gs_cloud.base}p/").fetch(scratch, Quiet())
        assert (top / "a").stat().st_mode & 0o777 == 0o644

    def test_many_objects_are_fetched(self, gs_cloud: Cloud, scratch: Path) -> None:
        many = {f"{number:03}": str(number).encode() for number in range(20)}
        for key, content in many.items():
            gs_cloud.put(f"p/{key}", content)
        assert contents(source(f"{gs_cloud.base}p/").fetch(scratch, Quiet())) == many

    def test_folder_without_objects_is_told(self, cloud: Cloud, scratch: Path) -> None:
        cloud.put("a", b"")
        error = fails(source(f"{cloud.base}b/"), scratch, UserError)
        assert error.message == f"There are no objects below {cloud.base}b/"

    def test_too_many_objects_are_refused(self, gs_cloud: Cloud, scratch: Path) -> None:
        for key in "abc":
            gs_cloud.put(f"p/{key}", b"1")
        error = fails(source(f"{gs_cloud.base}p/", max_files=2), scratch, UserError)
        assert error.message == f"{gs_cloud.base}p/ has more than 2 objects"
        assert "IMAGEMILL_SOURCE_MAX_FILES" in error.hint
        assert contents(scratch) == {}

    def test_too_many_bytes_are_refused(self, gs_cloud: Cloud, scratch: Path) -> None:
        for key in "abc":
            gs_cloud.put(f"p/{key}", bytes(2 << 20))
        error = fails(source(f"{gs_cloud.base}p/", max_bytes=5 << 20), scratch, UserError)
        assert error.message == f"{gs_cloud.base}p/ has more than 5,242,880 bytes"

    @pytest.mark.parametrize("size", [10, 2 << 20], ids=["small", "large"])
    def test_object_that_changes_between_list_and_read_is_told(
        self, cloud: Cloud, scratch: Path, size: int
    ) -> None:
        class Changing(Quiet):
            """Whoever asks first finds the object changed afterwards."""

            def check(self) -> None:
                if not self.lines:
                    self.lines.append("")
                    cloud.put("p/a", bytes(size - 1) + b"x")

        cloud.put("p/a", bytes(size))
        with pytest.raises(UserError) as raised:
            source(f"{cloud.base}p/").fetch(scratch, Changing())
        assert raised.value.message == f"{cloud.base}p/ was changed while it was read"


class TestFaults:
    def test_refusal_names_action_and_resource(self, cloud: Cloud, scratch: Path) -> None:
        cloud.put("a", packed())
        for text, action in ((f"{cloud.base}a", cloud.read), (cloud.base, cloud.listed)):
            cloud.proxy.clear()
            headers, body = cloud.refusal
            cloud.proxy.fail_next(403, headers, times=9, body=body)
            error = fails(source(text), scratch, PermissionDenied)
            assert isinstance(error, PermissionDenied)
            assert error.action == action
            assert parse(cloud.base).bucket in error.resource
            assert len(cloud.proxy.requests) == 1

    @pytest.mark.parametrize("status", [500, 503])
    def test_server_that_fails_is_asked_once(
        self, cloud: Cloud, scratch: Path, status: int
    ) -> None:
        cloud.put("a", packed())
        for text in (f"{cloud.base}a", cloud.base):
            cloud.proxy.clear()
            cloud.proxy.fail_next(status, times=9)
            fails(source(text), scratch, ServiceUnreachable)
            assert len(cloud.proxy.requests) == 1

    @pytest.mark.parametrize(("name", "after"), [("p/", 0), ("p/a", 100_000)])
    def test_body_that_breaks_off_is_tried_again_later(
        self, cloud: Cloud, scratch: Path, name: str, after: int
    ) -> None:
        cloud.put("p/a", bytes(2 << 20))
        cloud.proxy.reset_next(after_bytes=after, times=9, match=r"^GET .*(/p/a|%2Fa)")
        with pytest.raises(TransientError):
            source(f"{cloud.base}{name}").fetch(scratch, Quiet())


class Keys:
    """A bucket of S3 with keys that other servers would not keep:
    https://docs.aws.amazon.com/AmazonS3/latest/API.
    """

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.asked, self.answers = threading.Event(), threading.Event()
        self.answers.set()

    def __call__(self, request: Request) -> Response:
        if "list-type" not in request.query:
            self.asked.set()
            self.answers.wait(30)
            key = unquote(urlsplit(request.path).path.removeprefix("/bucket/"))
            return (
                Response(body=b"content", headers={"ETag": '"1"'})
                if key in self.keys
                else Response(404)
            )
        entries = "".join(
            f"<Contents><Key>{escape(quote(key))}</Key><Size>{0 if key.endswith('/') else 7}</Size>"
            '<ETag>"1"</ETag></Contents>'
            for key in self.keys
        )
        listing = f"<ListBucketResult><EncodingType>url</EncodingType>{entries}</ListBucketResult>"
        return Response(body=listing.encode(), headers={"Content-Type": "application/xml"})


HOSTILE = [
    ["p/../x"],
    ["p/.."],
    ["p/a/../../x"],
    ["p//etc/passwd"],
    ["p/a//b"],
    ["p/./a"],
    ["p/a/."],
    ["p/../"],
    ["p//"],
    ["p/a", "p/a/b"],
    ["p/a/b", "p/a"],
    ["p/a", "p/a/"],
    ["p/" + "n" * 300],
    ["p/" + "n/" * 300 + "n"],
]


@pytest.fixture
def keys(aws_environment: pytest.MonkeyPatch) -> Iterator[Keys]:
    """The keys that `s3://bucket` has."""
    made = Keys()
    with web.serve(made) as server:
        aws_environment.setenv("AWS_ENDPOINT_URL_S3", f"http://{server.address}")
        aws_fixtures.use_keys(aws_environment, "key", "secret")
        yield made
        aws.forget()


class TestHostileKeys:
    def test_keys_that_cannot_be_files_are_refused(
        self, keys: Keys, scratch: Path, tmp_path: Path
    ) -> None:
        for hostile in HOSTILE:
            keys.keys = hostile
            error = fails(source("s3://bucket/p/"), scratch, UserError)
            assert error.message.startswith(
                f"The object {hostile[-1]!r} in s3://bucket/p/ cannot be a file: "
            )
            assert error.hint.startswith("give the object another name")
        assert [path.name for path in tmp_path.iterdir()] == ["scratch"]
        assert {path.name[:7] for path in scratch.iterdir()} == {"source-"}

    def test_objects_that_stand_for_folders_are_folders(self, keys: Keys, scratch: Path) -> None:
        keys.keys = ["p/", "p/a/", "p/a/b", "p/empty/"]
        top = source("s3://bucket/p/").fetch(scratch, Quiet())
        assert contents(top) == {"a/b": b"content"}
        assert (top / "empty").is_dir()

    def test_odd_keys_are_files_of_these_names(self, keys: Keys, scratch: Path) -> None:
        odd = ["...", "-x", "a\\b", "~", " ", "é"]
        keys.keys = [f"p/{name}" for name in odd]
        assert contents(source("s3://bucket/p/").fetch(scratch, Quiet())) == dict.fromkeys(
            odd, b"content"
        )


def test_silent_bucket_does_not_keep_a_cancelled_build(keys: Keys, scratch: Path) -> None:
    class Cancelled(Quiet):
        def check(self) -> None:
            if keys.asked.is_set():
                raise BuildCancelled("stop")

    keys.keys = ["p/a"]
    keys.answers.clear()
    with pytest.raises(BuildCancelled):
        source("s3://bucket/p/").fetch(scratch, Cancelled())
    keys.answers.set()
