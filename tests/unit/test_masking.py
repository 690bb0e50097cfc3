"""What is hidden of a build's secrets, in the forms in which logs show them."""

import base64
import json
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builds import Watched
from imagemill.errors import OperatorError, PermissionDenied
from imagemill.masking import HIDDEN, Masked, masking

VALUE = 'p4ss "wörd"/+%$'


def hidden(text: str, *values: str) -> str:
    return Masked(Watched(), values or (VALUE,)).hide(text)


@pytest.mark.parametrize(
    "form",
    [
        VALUE,
        json.dumps(VALUE)[1:-1],
        json.dumps(VALUE, ensure_ascii=False)[1:-1],
        quote(VALUE),
        quote(VALUE, safe=""),
        quote_plus(VALUE),
        base64.b64encode(VALUE.encode()).decode(),
        base64.urlsafe_b64encode(VALUE.encode()).decode(),
        quote(VALUE, safe="").lower(),
        VALUE.encode().hex(),
        VALUE.encode().hex().upper(),
    ],
)
def test_a_value_is_hidden_in_each_form(form: str) -> None:
    assert hidden(f"before {form} after") == f"before {HIDDEN} after"


@given(st.binary(max_size=8), st.text("abcdefgh01234567", min_size=9, max_size=40), st.binary())
def test_what_others_put_around_a_value_before_base64_does_not_show_it(
    before: bytes, value: str, after: bytes
) -> None:
    line = base64.b64encode(before + value.encode() + after).decode()
    assert HIDDEN in hidden(line, value)


@pytest.mark.parametrize("width", [64, 76])
def test_no_line_of_a_long_value_in_base64_is_shown(width: int) -> None:
    value = "".join(chr(33 + at * 7 % 90) for at in range(300))
    text = base64.b64encode(f"{value}\n".encode()).decode()
    for at in range(0, len(text), width):
        assert len(hidden(text[at : at + width], value).replace(HIDDEN, "")) <= 8


def test_of_two_values_the_longer_is_hidden_whole() -> None:
    assert hidden("token=abcdefgh", "abcd", "abcdefgh") == f"token={HIDDEN}"


def test_the_lines_of_a_file_are_hidden_one_by_one(tmp_path: Path) -> None:
    secret, watched = tmp_path / "key", Watched()
    secret.write_text("first line\n  second line  \n\nabc\n")
    with masking(watched, [secret]) as progress:
        progress.log("#7 0.1 first line")
        progress.warn("second line, abc")

    assert watched.lines == [f"#7 0.1 {HIDDEN}", f"{HIDDEN}, abc"]
    assert watched.warnings == [f"{HIDDEN}, abc"]


def test_an_error_does_not_tell_a_value(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text(VALUE)
    with pytest.raises(PermissionDenied) as caught, masking(Watched(), [secret]):
        raise PermissionDenied(f"no {VALUE}", f"grant {VALUE}", "push", "there")

    assert (caught.value.message, caught.value.hint) == (f"no {HIDDEN}", f"grant {HIDDEN}")
    assert VALUE not in repr(caught.value)
    assert caught.value.resource == "there"


def test_without_secrets_nothing_is_changed(tmp_path: Path) -> None:
    empty, watched = tmp_path / "empty", Watched()
    empty.touch()
    with masking(watched, [empty]) as progress:
        progress.log("a line")
    with pytest.raises(OperatorError, match=r"^all of it$"), masking(watched, [empty]):
        raise OperatorError("all of it")
    assert watched.lines == ["a line"]
