"""Which images the stages of a Dockerfile stand on, for the digests that count."""

import pytest

from imagemill.dockerfile.base_images import bases


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        ("FROM a:1\n", ("a:1",)),
        ("FROM scratch\n", (None,)),
        ("FROM a@sha256:00\n", (None,)),
        ("FROM a AS one\nFROM one\n", ("a", None)),
        ("FROM a AS One\nFROM ONE\n", ("a", None)),
        ("FROM a\nFROM b\n", (None, "b")),
        ("FROM a AS one\nFROM b\nCOPY --from=one /x /x\n", ("a", "b")),
        ("FROM a\nFROM b\nCOPY --from=0 /x /x\n", ("a", "b")),
        ("FROM a AS one\nFROM b\nRUN --mount=type=bind,from=one,target=/x ls\n", ("a", "b")),
        ("ARG V=1\nFROM a:${V}\n", ("a:1",)),
        ("ARG V=1\nFROM a:$W\n", (None,)),
        ("FROM --platform=$BUILDPLATFORM a\n", ("a",)),
        ("FROM a\nRUN <<EOF\nFROM b\nEOF\n", ("a",)),
        ("", ()),
    ],
)
def test_images_whose_content_may_change_under_their_names(
    dockerfile: str, expected: tuple[str | None, ...]
) -> None:
    assert bases(dockerfile, {}) == expected


def test_arguments_of_the_build_are_in_their_places() -> None:
    assert bases("ARG V=1\nFROM a:$V\n", {"V": "2"}) == ("a:2",)
    assert bases("ARG V\nFROM a:$V\n", {"V": "2"}) == ("a:2",)


def test_only_what_the_target_needs_counts() -> None:
    dockerfile = "FROM a AS one\nFROM b AS two\nFROM c\n"
    assert bases(dockerfile, {}, "one") == ("a", None, None)
    assert bases(dockerfile, {}, "TWO") == (None, "b", None)
    assert bases(dockerfile, {}, "no such stage") == (None, None, None)
