"""How the text of a code artifact is read: what it means, its one canonical spelling, and what is
refused.
"""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imagemill.errors import UserError
from imagemill.sources.artifact.url import ArtifactUrl, Server, parse, server_of

SHA = "0123456789abcdef" * 4
BLOB = "https://account.blob.core.windows.net"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://host/a.tar.gz", ArtifactUrl("https", "host", "", "/a.tar.gz")),
        ("HTTPS://Host:443/a%20b.tar", ArtifactUrl("https", "host", "", "/a%20b.tar")),
        ("https://[::1]:8443/a.zip", ArtifactUrl("https", "[::1]:8443", "", "/a.zip")),
        ("http://host:80/a", ArtifactUrl("http", "host", "", "/a")),
        (f"https://host/a#sha256={SHA.upper()}", ArtifactUrl("https", "host", "", "/a", SHA)),
        (
            "https://host/a/#subdirectory=./b//c/",
            ArtifactUrl("https", "host", "", "/a/", subdirectory="b/c"),
        ),
        ("s3://bucket/a/b.tar.gz", ArtifactUrl("s3", "", "bucket", "a/b.tar.gz")),
        ("s3://bucket/a%23b%25?", ArtifactUrl("s3", "", "bucket", "a#b%")),
        (
            "s3://bucket/k#etag=abc-2&subdirectory=x",
            ArtifactUrl("s3", "", "bucket", "k", "", "x", "abc-2"),
        ),
        (
            "gs://bucket.name_1/k#generation=12",
            ArtifactUrl("gs", "", "bucket.name_1", "k", version="12"),
        ),
        (
            f"{BLOB}/box/k#etag=0x8D",
            ArtifactUrl("azure", "account.blob.core.windows.net", "box", "k", version="0x8D"),
        ),
        (
            "https://bucket.s3.amazonaws.com/k",
            ArtifactUrl("https", "bucket.s3.amazonaws.com", "", "/k"),
        ),
        (
            "https://a.blob.core.windows.net.evil.org/b/k",
            ArtifactUrl("https", "a.blob.core.windows.net.evil.org", "", "/b/k"),
        ),
    ],
)
def test_text_is_read(text: str, url: ArtifactUrl) -> None:
    assert parse(text) == url


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (
            "HTTPS://HOST:443/a b#subdirectory=x/&sha256=" + SHA,
            f"https://host/a%20b#sha256={SHA}&subdirectory=x",
        ),
        ("https://host/é%zz", "https://host/%C3%A9%25zz"),
        ("S3://bucket", "s3://bucket/"),
        ("s3://bucket/a b%2Bc", "s3://bucket/a%20b%2Bc"),
        ("gs://bucket/é", "gs://bucket/%C3%A9"),
        (f"{BLOB}/box", f"{BLOB}/box/"),
        ("https://host/a#subdirectory=%26%3D%23", "https://host/a#subdirectory=%26%3D%23"),
    ],
)
def test_source_has_one_canonical_text(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)


@pytest.mark.parametrize(
    "text", ["s3://bucket", "s3://bucket/", "gs://bucket/a/", f"{BLOB}/box", f"{BLOB}/box/a/"]
)
def test_prefix_is_a_folder_of_objects(text: str) -> None:
    assert parse(text).is_folder


@pytest.mark.parametrize(
    "text", ["s3://bucket/a", "gs://bucket/a/b", f"{BLOB}/box/a", "https://host/a/"]
)
def test_key_and_page_are_no_folders(text: str) -> None:
    assert not parse(text).is_folder


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("nothing", "The text of the source is not an artifact's", "write https://HOST/PATH"),
        ("ftp://host/a", "There are no artifacts at ftp://", "write https://"),
        ("https://host", "The path of the source is empty", "write https://"),
        ("https://host/a/../b", "The path of the source is empty, or has '.'", "write https://"),
        (
            "https://host/a/%2e%2E/b",
            "The path of the source is empty, or has '.'",
            "write https://",
        ),
        ("https://ho st/a", "The host of the source is not a host's name", "write https://"),
        ("https://host:0/a", "The host of the source is not a host's name", "write https://"),
        ("https://host:99999/a", "The host of the source is not a host's name", "write https://"),
        ("s3://B/a", "The source does not name a bucket as they can be called", "write https://"),
        ("s3:///a", "The source does not name a bucket as they can be called", "write https://"),
        (
            f"{BLOB}/a.tar.gz",
            "The source does not name a container as they can be called",
            "write https://",
        ),
        (
            f"{BLOB}/box/../other/a",
            "The key of the source has control characters, '.' or '..'",
            "write https://",
        ),
        ("s3://bucket/a%0Ab", "The key of the source has control characters", "write https://"),
        (
            "s3://bucket/" + "k" * 1025,
            "The key of the source has control characters",
            "write https://",
        ),
        ("s3://bucket/%ff", "The percent-encoding of the source is not UTF-8", "encode"),
        (
            "https://host/a\n",
            "The source is longer than 4096 characters, or has control characters",
            "write https://",
        ),
        (
            "https://host/" + "a" * 5000,
            "The source is longer than 4096 characters",
            "write https://",
        ),
        ("https://host/a#sha=1", "Such an artifact has no option 'sha'", "did you mean sha256?"),
        (
            "https://host/a#etag=1",
            "Such an artifact has no option 'etag'",
            "the options are sha256, subdirectory",
        ),
        (
            "s3://bucket/a#generation=1",
            "Such an artifact has no option 'generation'",
            "the options are sha256, ",
        ),
        (
            "https://host/a#main",
            "What stands after the '#' of the source is no option",
            "write #sha256=HEX",
        ),
        ("https://host/a#sha256=12", "'12' is not a SHA-256", "write sha256= and 64 hex digits"),
        ("https://host/a#sha256=", "'' is not a SHA-256", "write sha256= and 64 hex digits"),
        (
            f"https://host/a#sha256={SHA}&sha256={SHA}",
            "The source has sha256 twice after its '#'",
            "name it once",
        ),
        (
            "https://host/a#subdirectory=../b",
            "'../b' is not a folder in an artifact",
            "write subdirectory=FOLDER",
        ),
        (
            f"s3://bucket/a/#sha256={SHA}",
            "s3://bucket/a/ is a folder of objects, which has no SHA-256",
            "pack it",
        ),
        (
            "s3://bucket/a/#etag=1",
            "s3://bucket/a/ is a folder of objects, which has no etag",
            "leave it out",
        ),
        ("gs://bucket/a#generation=x", "'x' is not the generation of an object", "leave it out"),
    ],
)
def test_what_is_no_artifact_is_told(text: str, message: str, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(text)
    assert raised.value.message.startswith(message)
    assert raised.value.hint.startswith(hint)


SECRET = "s3cret-of-the-tests"


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{SECRET}@host/a",
        f"https://{SECRET}@host/a",
        f"https://user:{SECRET}/x@host/a",
        f"https://host/a?X-Amz-Signature={SECRET}",
        f"{BLOB}/box/a?sv=1&sig={SECRET}",
        f"s3://key:{SECRET}@bucket/a",
        f"s3://bucket/a?X-Amz-Signature={SECRET}",
        f"https://host/a#{SECRET}",
        f"ftp://user:{SECRET}@host/a",
    ],
)
def test_secret_in_the_text_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(text)
    assert SECRET not in str(raised.value)


def test_query_is_said_to_be_unfit() -> None:
    with pytest.raises(UserError, match="has a query, which may be a signature") as raised:
        parse("https://host/a?b=c")
    assert raised.value.hint.startswith("leave it out, and let the worker have credentials")


NAMES = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=8
)
NAMES = NAMES.filter(lambda name: name not in (".", ".."))
KEYS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@given(
    st.sampled_from([("s3", ""), ("gs", ""), ("azure", "account.blob.core.windows.net")]),
    KEYS,
    st.sampled_from(["", SHA]),
    KEYS | st.just(""),
    st.sampled_from(["", "12"]),
)
def test_canonical_text_of_an_object_is_read_as_the_same(
    place: tuple[str, str], key: str, sha256: str, subdirectory: str, version: str
) -> None:
    url = ArtifactUrl(place[0], place[1], "bucket", key, sha256, subdirectory, version)
    assert parse(str(url)) == url


@given(st.text(max_size=40) | st.text("htps:/@#?%.[]0a", max_size=40))
@example("https://[/a")
@example("https://[::1/a")
@example("https://host:/a")
def test_any_text_is_an_artifact_or_a_users_error(tail: str) -> None:
    for text in (
        tail,
        f"https://{tail}",
        f"https://host/{tail}",
        f"s3://bucket/{tail}",
        f"{BLOB}/box/{tail}",
    ):
        try:
            url = parse(text)
        except UserError:
            continue
        assert parse(str(url)) == url
        assert str(parse(str(url))) == str(url)
        assert url.location.isascii()


def test_server_of_a_url() -> None:
    assert server_of("https://HOST/a") == Server("https", "host", 443)
    assert server_of("http://host:443/a").address == "host:443"
