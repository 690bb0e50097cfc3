"""Image references, as Docker reads and writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagemill.errors import UserError
from imagemill.reference import ImageReference, is_digest

SHA256 = f"sha256:{'a1' * 32}"
SHA512 = f"sha512:{'b2' * 64}"

labels = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
ports = st.integers(0, 65535).map(lambda port: f":{port}") | st.just("")
names = st.lists(labels, min_size=2, max_size=4).map(".".join)
addresses = st.ip_addresses(v=6).map(lambda address: f"[{address}]") | st.ip_addresses(v=4).map(str)
# Documentation has IPv4 addresses in IPv6 ones as well (`::ffff:1.2.3.4`): Docker's grammar has
# not.
hosts = (
    names | addresses.filter(lambda host: "." not in host or "[" not in host) | st.just("localhost")
)
registries = (
    st.tuples(hosts, ports)
    .map("".join)
    .filter(lambda host: host not in ("index.docker.io", "docker.io"))
)
components = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,6}){0,2}", fullmatch=True)
paths = st.lists(components, min_size=1, max_size=4).map("/".join)
tags = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)
digests = st.none() | st.text("0123456789abcdef", min_size=64, max_size=64).map(
    lambda text: f"sha256:{text}"
)
references = st.builds(ImageReference, registries, paths, tags, digests) | st.builds(
    ImageReference,
    st.just("docker.io"),
    components.map(lambda path: f"library/{path}"),
    tags,
    digests,
)


@given(references)
def test_text_of_a_reference_is_read_back_as_the_same(reference: ImageReference) -> None:
    assert ImageReference.parse(str(reference)) == reference
    assert ImageReference.parse(f"https://{reference}") == reference


@given(references)
def test_repository_of_a_reference_is_a_destination(reference: ImageReference) -> None:
    destination = ImageReference.parse_destination(f"https://{reference.repository}")
    assert destination == reference.with_tag(None).with_digest(None)
    assert str(destination) == reference.repository


@given(st.text(max_size=40) | st.text(":/@.[]aA1-_", max_size=40))
def test_any_text_is_a_reference_or_a_user_error_with_a_hint(text: str) -> None:
    try:
        reference = ImageReference.parse(text)
    except UserError as error:
        hint = error.hint
    else:
        hint = "none is needed"
        assert ImageReference.parse(str(reference)) == reference
    assert hint


@pytest.mark.parametrize(
    ("text", "registry", "path", "tag", "digest"),
    [
        ("busybox", "docker.io", "library/busybox", None, None),
        ("busybox:1.36", "docker.io", "library/busybox", "1.36", None),
        (f"busybox@{SHA256}", "docker.io", "library/busybox", None, SHA256),
        ("docker.io/busybox", "docker.io", "library/busybox", None, None),
        ("index.docker.io/busybox", "docker.io", "library/busybox", None, None),
        ("docker.io/library/busybox", "docker.io", "library/busybox", None, None),
        ("user/image", "docker.io", "user/image", None, None),
        ("user/group/image:v1", "docker.io", "user/group/image", "v1", None),
        ("localhost", "docker.io", "library/localhost", None, None),
        ("localhost:5000", "docker.io", "library/localhost", "5000", None),
        ("example.com:5000", "docker.io", "library/example.com", "5000", None),
        ("localhost/image", "localhost", "image", None, None),
        ("localhost:5000/image", "localhost:5000", "image", None, None),
        ("localhost:5000/image:5000", "localhost:5000", "image", "5000", None),
        ("registry:5000/image", "registry:5000", "image", None, None),
        ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000", "a/b", "v1", None),
        ("[::1]/image", "[::1]", "image", None, None),
        ("[::1]:5000/image:v1", "[::1]:5000", "image", "v1", None),
        (f"[2001:db8::1]:5000/a/b:v1@{SHA256}", "[2001:db8::1]:5000", "a/b", "v1", SHA256),
        (f"ghcr.io/a/b:v1@{SHA512}", "ghcr.io", "a/b", "v1", SHA512),
        ("https://ghcr.io/a/b:v1", "ghcr.io", "a/b", "v1", None),
        ("https://busybox", "docker.io", "library/busybox", None, None),
        ("sub-dom1.foo.com/bar/baz/quux", "sub-dom1.foo.com", "bar/baz/quux", None, None),
        (
            "b.gcr.io/test.example.com/my-app:test.example.com",
            "b.gcr.io",
            "test.example.com/my-app",
            "test.example.com",
            None,
        ),
        ("xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com", "myimage", "xn--n3h.com", None),
        ("foo_bar.com:8080", "docker.io", "library/foo_bar.com", "8080", None),
        ("foo/foo_bar.com:8080", "docker.io", "foo/foo_bar.com", "8080", None),
        ("lowercase:Uppercase", "docker.io", "library/lowercase", "Uppercase", None),
        ("Example.com/image", "Example.com", "image", None, None),
        ("Host/image", "Host", "image", None, None),
        ("a/b__c/d--e/f.g:_", "docker.io", "a/b__c/d--e/f.g", "_", None),
        (f"docker.io/{'f' * 64}", "docker.io", f"library/{'f' * 64}", None, None),
        (
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/model:v1",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "team/model",
            "v1",
            None,
        ),
    ],
)
def test_parts_of_a_reference(
    text: str, registry: str, path: str, tag: str | None, digest: str | None
) -> None:
    assert ImageReference.parse(text) == ImageReference(registry, path, tag, digest)


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("", "is empty", "a reference is"),
        ("https://", "is empty", "a reference is"),
        (" ", "not a repository", "lower-case letters"),
        ("a b", "not a repository", "lower-case letters"),
        ("busybox\n", "not a repository", "lower-case letters"),
        (":justtag", "not a repository", "lower-case letters"),
        (f"@{SHA256}", "not a repository", "lower-case letters"),
        ("localhost:5000/", "not a repository", "lower-case letters"),
        ("a//b", "not a repository", "lower-case letters"),
        ("a/b/", "not a repository", "lower-case letters"),
        ("-a", "not a repository", "lower-case letters"),
        ("a..b", "not a repository", "lower-case letters"),
        ("a___b", "not a repository", "lower-case letters"),
        ("aa/asdf$$^/aa", "not a repository", "lower-case letters"),
        ("Uppercase:tag", "upper-case letters", "write 'library/uppercase'"),
        ("test:5000/Uppercase/lowercase:tag", "upper-case letters", "write 'uppercase/lowercase'"),
        ("ghcr.io/Team/Model", "upper-case letters", "write 'team/model'"),
        ("busybox:", "'' is not a tag", "128 letters"),
        ("busybox:.x", "'.x' is not a tag", "128 letters"),
        ("busybox:a:b", "'a:b' is not a tag", "128 letters"),
        ("busybox:ä", "is not a tag", "128 letters"),
        (f"busybox:{'t' * 129}", "is not a tag", "128 letters"),
        ("busybox@", "'', no digest", "@sha256:DIGEST"),
        (f"busybox@{SHA256[:-1]}", "no digest", "@sha256:DIGEST"),
        (f"busybox@{SHA256.upper()}", "no digest", "@sha256:DIGEST"),
        (f"busybox@md5:{'a' * 32}", "no digest", "@sha256:DIGEST"),
        ("-host.io/a", "not a registry's host and port", "a reference is"),
        ("host.io:x/a", "not a registry's host and port", "a reference is"),
        ("host.io:65536/a", "not a registry's host and port", "a reference is"),
        ("[::1/a", "not a registry's host and port", "a reference is"),
        ("[:::::]/a", "not a registry's host and port", "a reference is"),
        ("[fe80::1%eth0]:5000/a", "not a registry's host and port", "a reference is"),
        ("f" * 64, "is the id of an image", "a reference is"),
        ("a/" * 128 + "a", "longer than 255 characters", "shorter"),
        ("http://localhost:5000/a", "a scheme in front", "leave out the scheme"),
        ("docker-image://busybox", "a scheme in front", "leave out the scheme"),
    ],
)
def test_what_is_no_reference_is_a_user_error(text: str, words: str, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        ImageReference.parse(text)
    assert words in raised.value.message
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "user:open-sesame@host.io/a",
        "https://user:open-sesame@host.io/a:v1",
        "https://user:open-sesame@host.io",
        "http://user:open-sesame@host.io/a",
        "https://user:open-sesame@x@host.io/a",
        f"user:open-sesame@host.io/a@{SHA256}",
    ],
)
def test_password_in_a_reference_is_not_repeated(text: str) -> None:
    with pytest.raises(UserError) as raised:
        ImageReference.parse(text)
    assert "open-sesame" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        (
            "localhost:5000/a:v1",
            "The destination 'localhost:5000/a:v1' has a tag",
            "write localhost:5000/a: the tag is",
        ),
        (f"localhost:5000/a@{SHA256}", "has a digest", "write localhost:5000/a: the tag is"),
        (f"localhost:5000/a:v1@{SHA256}", "has a digest", "write localhost:5000/a: the tag is"),
        ("localhost:5000", "has a tag", "HOST:PORT/REPOSITORY"),
        ("https://localhost:5000", "has a tag", "HOST:PORT/REPOSITORY"),
    ],
)
def test_destination_with_a_tag_or_digest_is_a_user_error(text: str, words: str, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        ImageReference.parse_destination(text)
    assert words in raised.value.message
    assert hint in raised.value.hint


def test_pinned_leaves_out_the_tag() -> None:
    reference = ImageReference.parse(f"localhost:5000/a:v1@{SHA256}")
    assert reference.pinned == f"localhost:5000/a@{SHA256}"
    assert str(reference) == f"localhost:5000/a:v1@{SHA256}"


def test_without_a_digest_nothing_is_pinned() -> None:
    with pytest.raises(ValueError, match=r"docker\.io/library/busybox:v1 has no digest"):
        _ = ImageReference.parse("busybox:v1").pinned


def test_tag_and_digest_are_replaced_each_by_itself() -> None:
    reference = ImageReference.parse(f"busybox:v1@{SHA256}")
    assert str(reference.with_tag("v2")) == f"docker.io/library/busybox:v2@{SHA256}"
    assert str(reference.with_digest(None)) == "docker.io/library/busybox:v1"


def test_parts_that_are_not_valid_make_no_reference() -> None:
    reference = ImageReference.parse("busybox")
    with pytest.raises(UserError, match="is not a tag"):
        reference.with_tag("a b")
    with pytest.raises(UserError, match="is not a digest"):
        reference.with_digest("sha256:abc")
    with pytest.raises(UserError, match="not a repository in full"):
        ImageReference("docker.io", "busybox")
    with pytest.raises(UserError, match="not a repository in full"):
        ImageReference("host", "image")


@pytest.mark.parametrize(
    ("text", "right"),
    [(SHA256, True), (SHA512, True), ("sha256:abc", False), (f"{SHA256}\n", False)],
)
def test_digests_are_known_by_their_form(text: str, right: bool) -> None:
    assert is_digest(text) is right
