"""The names that others choose: what each may look like, before it becomes a path, a key, a label
or a word in a log line.

Requests, messages and configs name builds, configs, secrets and more. Each such name has one
grammar here, and no grammar has a separator of paths, a pattern or a control character in it.
"""

import re
from dataclasses import dataclass

from imagemill.errors import UserError
from imagemill.text import one_line

_SHOWN = 80


@dataclass(frozen=True)
class Grammar:
    """What one kind of name may look like; `article` and `form` say so in words."""

    article: str
    pattern: "re.Pattern[str]"
    form: str

    def fits(self, text: str) -> bool:
        """Return whether the text is such a name."""
        return self.pattern.fullmatch(text) is not None

    def checked(self, text: str) -> str:
        """Return the text; raise `UserError`, which says what is allowed, if it is no such name."""
        if not self.fits(text):
            raise UserError(f'"{one_line(text, _SHOWN)}" is not {self.article}', self.form)
        return text


_WORD = "letters, digits, '_', '.' and '-', and begins with neither '.' nor '-'"

BUILD_ID = Grammar(
    "the id of a build",
    re.compile(r"[A-Za-z0-9_-]{1,64}"),
    "an id is up to 64 letters, digits, '_' and '-'",
)
CONFIG = Grammar(
    "the name of a config",
    re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"),
    f"a name is up to 128 {_WORD}",
)
SECRET_ID = Grammar(
    "an id of a build secret",
    re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"),
    f"an id, not the secret itself: up to 128 {_WORD}",
)
TAG = Grammar(
    "a tag", re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"), f"a tag is up to 128 {_WORD}"
)
SOURCE_HASH = Grammar(
    "a source hash", re.compile(r"[0-9a-f]{64}"), "a source hash is 64 lower-case hex digits"
)
OBJECT = Grammar(
    "the name of an object",
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"),
    f"a name is up to 200 {_WORD}",
)
TENANT = Grammar(
    "the name of a tenant",
    re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"),
    "a name is up to 63 lower-case letters, digits and '-'",
)
