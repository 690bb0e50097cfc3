"""Text in the encodings that people bring."""

import pytest

from imagemill.encoding import decoded
from imagemill.errors import UserError


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_mark_says_the_encoding(encoding: str) -> None:
    assert decoded("naïve\r\n".encode(encoding), "x") == "naïve\r\n"


def test_empty_file_is_empty() -> None:
    assert decoded(b"", "x") == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nb\u00e9".encode("latin-1"), "x:2: this is not UTF-8"),
        (b"\xff\xfea\x00\n\x00\x00\xd8a\x00", "x:2: this is not UTF-16"),
        (
            "a".encode("utf-16-be"),
            "x:1: there is a NUL character in it, as in UTF-16 without a mark",
        ),
    ],
)
def test_what_is_no_text_is_an_error_with_its_line(content: bytes, message: str) -> None:
    with pytest.raises(UserError) as raised:
        decoded(content, "x")
    assert raised.value.message == message
