"""The names that others choose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagemill import grammar
from imagemill.errors import UserError

GRAMMARS = [each for each in vars(grammar).values() if isinstance(each, grammar.Grammar)]
NEVER = (
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "a\n",
    "\na",
    "a b",
    "a\0",
    "é",
    "a*",
    "-" * 300,
    "a:b",
)


@pytest.mark.parametrize("each", GRAMMARS, ids=lambda each: each.article)
def test_no_name_is_a_path_a_pattern_or_a_line(each: grammar.Grammar) -> None:
    assert not [name for name in NEVER if each.fits(name)]


@pytest.mark.parametrize("each", GRAMMARS, ids=lambda each: each.article)
@given(text=st.text())
def test_what_fits_is_of_letters_digits_and_three_signs(each: grammar.Grammar, text: str) -> None:
    if each.fits(text):
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def test_ids_of_builds() -> None:
    for good in ("a", "A_-0", "x" * 64, "-"):
        assert grammar.BUILD_ID.checked(good) == good
    for bad in ("x" * 65, "x/../../../victim", "a.b", "a\nINFO forged"):
        with pytest.raises(UserError, match="is not the id of a build"):
            grammar.BUILD_ID.checked(bad)


def test_a_refusal_is_one_line() -> None:
    with pytest.raises(UserError) as caught:
        grammar.BUILD_ID.checked("a\nerror: forged" + "x" * 1000)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200
