"""Somebody else's text in a line of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagemill.text import amount, one_line


@given(st.text())
def test_it_is_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable()


@given(st.text(min_size=50))
def test_it_is_no_longer_than_asked(text: str) -> None:
    assert len(one_line(text, 40)) <= 40


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("as it is", "as it is"),
        ("a\nerror: forged", "a error: forged"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("title \x1b]0;evil\x07here", "title here"),
        ("left\u202eright\u2028\x85\0\ud800", "left right    "),
        ("x" * 301, "x" * 299 + "…"),
        ("x" * 300, "x" * 300),
        ("\x1b[31m" * 100 + "x", "x"),
    ],
)
def test_how_it_is_shown(text: str, shown: str) -> None:
    assert one_line(text) == shown


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (12_345, "12 kB"),
        (2_500_000_000, "2.5 GB"),
    ],
)
def test_amounts_are_read_at_a_glance(size: int, text: str) -> None:
    assert amount(size) == text
