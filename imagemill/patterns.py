r"""Patterns for text that somebody else wrote: matched in time that grows with the text's length and
no faster, whatever the text is.

They are RE2's (https://github.com/google/re2/wiki/Syntax): no look-around, no back-references, and
`\w`, `\s` and `\d` are ASCII.
"""

import re
from typing import cast

import re2  # type: ignore[import-untyped]


class Linear:
    """A pattern of RE2, with the methods of `re.Pattern` that look for one match."""

    def __init__(self, pattern: str, *, ignore_case: bool = False, dot_all: bool = False) -> None:
        flags = ("i" if ignore_case else "") + ("s" if dot_all else "")
        self._compiled = re2.compile(f"(?{flags}){pattern}" if flags else pattern)

    def search(self, text: str) -> re.Match[str] | None:
        """Return the first match anywhere in the text."""
        return cast("re.Match[str] | None", self._compiled.search(_encodable(text)))

    def match(self, text: str) -> re.Match[str] | None:
        """Return the match at the text's beginning."""
        return cast("re.Match[str] | None", self._compiled.match(_encodable(text)))

    def fullmatch(self, text: str) -> re.Match[str] | None:
        """Return the match of the whole text."""
        return cast("re.Match[str] | None", self._compiled.fullmatch(_encodable(text)))


def _encodable(text: str) -> str:
    """Return the text, with `?` for halves of characters, which RE2 does not take."""
    return text if text.isascii() else text.encode(errors="replace").decode()
