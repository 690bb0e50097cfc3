"""Hides the values of a build's secrets in what the build says: in its log, and in the error that
it ends with.

A `RUN` that means to give a secret away can: it may write it backwards. What is hidden is what
happens by accident, as `set -x`, a tool's verbose output or a URL with a password do.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, quote_plus

from imagemill.errors import ImagemillError
from imagemill.messages import State
from imagemill.ports import Progress

HIDDEN = "***"
"""What stands for a secret's value."""

SHORTEST = 4
"""Characters of the shortest value, and line of a value, that is hidden: anybody may guess less,
and a log without the letter `a` says nothing.
"""

_LINES = (76, 64)
"""How long lines of base64 are: those of `base64`, and those of PEM."""

_MOST_BYTES = 512 * 1024
"""Of one secret; BuildKit takes no larger one."""


@dataclass(frozen=True)
class Masked:
    """A `Progress` that says what another one is told, but for the values of secrets."""

    progress: Progress
    values: tuple[str, ...]

    def log(self, line: str) -> None:
        self.progress.log(self.hide(line))

    def warn(self, line: str) -> None:
        self.progress.warn(self.hide(line))

    def amount(self, text: str) -> None:
        self.progress.amount(self.hide(text))

    def check(self) -> None:
        self.progress.check()

    def enter(self, state: State) -> None:
        self.progress.enter(state)

    def remaining(self) -> float:
        return self.progress.remaining()

    def hide(self, text: str) -> str:
        """Return the text with `***` for each value, as it is or encoded as tools write it."""
        return self._pattern.sub(HIDDEN, text) if self.values else text

    @cached_property
    def _pattern(self) -> "re.Pattern[str]":
        found = {form for value in self.values for form in _forms(value)}
        # The longest first: a value may be a part of another one.
        return re.compile("|".join(map(re.escape, sorted(found, key=len, reverse=True))))


@contextmanager
def masking(progress: Progress, secrets: Iterable[Path]) -> Iterator[Masked]:
    """Lend a `Progress` that hides what is in the files; an `ImagemillError` of the block hides it,
    too.
    """
    masked = Masked(progress, tuple(value for path in secrets for value in _values(path)))
    try:
        yield masked
    except ImagemillError as error:
        error.message, error.hint = masked.hide(error.message), masked.hide(error.hint)
        error.args = (error.message, error.hint, *error.args[2:])
        raise


def _values(path: Path) -> Iterator[str]:
    """Yield the content of a secret, and each of its lines, since a log has lines."""
    with path.open("rb") as file:
        text = file.read(_MOST_BYTES).decode(errors="replace").strip()
    for value in {text, *(line.strip() for line in text.splitlines())}:
        if len(value) >= SHORTEST:
            yield value


def _forms(value: str) -> Iterator[str]:
    """Yield the value as logs show it: as it is, quoted for a shell, JSON or a URL, and in base64."""
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield quote(value, safe="")
    yield quote(value)
    yield quote_plus(value)
    yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quote(value, safe=""))
    yield value.replace("'", "'\\''")
    content = value.encode()
    yield content.hex()
    yield content.hex().upper()
    yield base64.b64encode(content).decode()
    yield base64.urlsafe_b64encode(content).decode()
    for shift in range(3):  # as a part of a longer text, such as USER:PASSWORD
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * shift + content).decode()
            inner = encoded[(0, 2, 3)[shift] : len(encoded) - (0, 3, 2)[(shift + len(content)) % 3]]
            if len(inner) >= 2 * SHORTEST:
                yield inner
                if shift == 0:  # of a long one, programs make lines
                    for width in _LINES:
                        lines = (inner[at : at + width] for at in range(0, len(inner), width))
                        yield from (line for line in lines if len(line) >= 2 * SHORTEST)
