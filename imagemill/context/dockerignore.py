"""Reads `.dockerignore` exactly as BuildKit does, so that a build through Imagemill sees what
`docker build` would see.

The rules, quirks included, are those of three Go packages, followed here step by step:
https://github.com/moby/patternmatcher (`ignorefile` reads the lines, `patternmatcher` matches
paths) and https://github.com/tonistiigi/fsutil (`filter.go` walks, and decides which folders need
not be entered). Patterns become regular expressions of RE2, which is what Go has: the same syntax,
and matching in linear time, so that no pattern, however hostile, can hold up a worker.
"""

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import re2  # type: ignore[import-untyped]

from imagemill.encoding import decoded, is_marked
from imagemill.errors import UserError

Matches = tuple[bool, ...]
"""Which patterns match a folder or one above it: what its entries inherit."""

_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + "\u2028\u2029\u202f\u205f\u3000"
)
"""What Go's `strings.TrimSpace` trims: Unicode's White_Space (Python's `str.strip` trims four
characters more).
"""

_COMMENT = re.compile(rb"^#[^\n]*", re.MULTILINE)

_SPECIAL = "*[]?^\\"
"""Characters that make a pattern, or a part of one, more than a plain name."""


@dataclass(frozen=True)
class Pattern:
    """One line of a `.dockerignore`."""

    text: str
    """Cleaned, without the `!`."""
    exception: bool
    """Whether it began with `!`: what it matches is not ignored."""
    matches: Callable[[bytes], bool]
    """Whether it matches this very path; what is below a match is the walk's business."""
    expression: str
    """A regular expression that matches the same paths."""
    is_expression: bool
    """Whether it takes that to match, rather than a comparison."""

    def may_match_below(self, folder: str) -> bool:
        """Whether a path below `folder` could match: not if the plain names that the pattern begins
        with differ.
        """
        if self.is_expression and ("|" in self.text or "{" in self.text):
            return True
        for part, name in zip(self.text.split("/"), folder.split("/"), strict=False):
            if any(character in _SPECIAL for character in part):
                return True
            if part != name:
                return False
        return self.text.startswith(f"{folder}/")


class DockerIgnore:
    """The patterns of one `.dockerignore`, in order: the last that matches decides."""

    def __init__(self, patterns: tuple[Pattern, ...] = ()) -> None:
        self._patterns = patterns
        self._exceptions = tuple(pattern for pattern in patterns if pattern.exception)
        self._plain_exceptions = not any(
            character in _SPECIAL
            for pattern in self._exceptions
            for character in _without_trailing_glob(pattern)
        )
        self._any = _any([pattern.expression for pattern in patterns])
        self.at_top: Matches = (False,) * len(patterns)
        """What the entries of the context's top folder inherit."""

    @classmethod
    def parse(cls, content: bytes, name: str) -> Self:
        """Read the file; `name` is its name in errors. A pattern that BuildKit refuses is a
        `UserError`, as is a file that is no text: it never ignores nothing.
        """
        if not is_marked(content):  # a comment may be in any encoding
            content = _COMMENT.sub(b"#", content)
        lines = _lines(decoded(content, name))
        return cls(tuple(_pattern(line, f"{name}:{number}") for number, line in lines))

    @property
    def asks_for_git(self) -> bool:
        """Whether an exception names `.git`, which is left out of sources otherwise."""
        return any(".git" in pattern.text.split("/") for pattern in self._exceptions)

    @property
    def texts(self) -> tuple[str, ...]:
        """The patterns as texts: the same ones ignore the same."""
        return tuple(f"{'!' * pattern.exception}{pattern.text}" for pattern in self._patterns)

    def match(self, path: bytes, inherited: Matches) -> tuple[bool, Matches]:
        """Whether `path` is ignored, and what its entries inherit, if it is a folder.

        `inherited` is what its own folder passes on. As in Go, a pattern that cannot change the
        outcome is not even tried, and so does not count as matching for what is below.
        """
        # Few paths match anything, and asking all patterns at once costs hardly more than asking
        # one.
        may_match = self._any is not None and _searches(self._any, path)
        if not may_match and True not in inherited:
            return False, inherited
        ignored = False
        matches = list(inherited)
        for index, pattern in enumerate(self._patterns):
            if not matches[index]:
                if not may_match or pattern.exception != ignored or not pattern.matches(path):
                    continue
                matches[index] = True
            ignored = not pattern.exception
        return ignored, tuple(matches)

    def may_keep_below(self, folder: bytes) -> bool:
        """Whether an ignored folder has to be entered, since an exception could match something
        below it.

        Where all exceptions are plain names BuildKit compares prefixes, otherwise it enters every
        folder. We enter fewer, but only where no exception can match.
        """
        if self._plain_exceptions:
            below = folder + b"/"
            return any(
                f"{_without_trailing_glob(pattern)}/".encode().startswith(below)
                for pattern in self._exceptions
            )
        path = _text(folder)
        return any(pattern.may_match_below(path) for pattern in self._exceptions)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the patterns as `ignorefile.ReadAll` gives them, each with the number of its line."""
    for number, raw in enumerate(text.split("\n"), start=1):
        if raw.startswith("#") or not (line := raw.strip(_SPACE)):
            continue
        exception = line.startswith("!")
        path = line.removeprefix("!").strip(_SPACE)
        if path:
            path = _clean(path)
            path = path[1:] if path.startswith("/") and path != "/" else path
        yield number, f"!{path}" if exception else path


def _pattern(line: str, where: str) -> Pattern:
    """As `patternmatcher.New` does it, which cleans once more, and looks for a `!` only then."""
    text = _clean(line.strip(_SPACE))
    if text == "!":
        raise UserError(
            f"{where}: a '!' alone is not a pattern",
            "write what is not to be ignored behind the '!'",
        )
    exception = text.startswith("!")
    text = text.removeprefix("!")
    try:
        _check_syntax(text)
        return Pattern(text, exception, *_matcher(text))
    except (ValueError, re2.error):
        raise UserError(
            f"{where}: {text!r} is not a valid pattern",
            r"close every '[', keep '-' and ']' in it behind a '\', and have no '\' at the end",
        ) from None


def _text(path: bytes) -> str:
    """Decode as Go does where it must: each byte that is not UTF-8 is one U+FFFD."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        return re.sub("[\udc80-\udcff]", "\ufffd", path.decode(errors="surrogateescape"))


def _clean(path: str) -> str:
    """Go's `filepath.Clean`: POSIX would keep two slashes in front."""
    return re.sub("^//+", "/", posixpath.normpath(path))


def _without_trailing_glob(pattern: Pattern) -> str:
    return pattern.text.removesuffix("/**").removesuffix("/*")


_LITERAL, _PREFIX, _SUFFIX, _REGEXP = "literal", "prefix", "suffix", "regexp"
"""How a pattern is matched: by the cheapest means that will do."""

_TOKEN = re.compile(r"\*\*/?|\\.|.", re.DOTALL)
_WILD = {"*": "[^/]*", "?": "[^/]", "[": "[", "]": "]"}
_ESCAPED = frozenset(".+()$")

_CHUNK = re.compile(r"\**((?:\\.?|\[(?:\\.?|[^\\\]])*\]?|[^*\\\[])*)", re.DOTALL)
_IN_BRACKETS = r"(?:\\.|[^\\\]-])"
_VALID_CHUNK = re.compile(
    rf"(?:\[\^?+(?:{_IN_BRACKETS}(?:-{_IN_BRACKETS})?)+\]|\\.|[^\\\[])*", re.DOTALL
)

_MAX_MEMORY = 1 << 20
"""Bytes that one compiled expression may take, with what it remembers. RE2 keeps up to 128 of
them.
"""


def _matcher(text: str) -> tuple[Callable[[bytes], bool], str, bool]:
    """Return what decides whether a path matches, and `expression` and `is_expression` of the
    pattern.

    `re2.error` if the pattern is not valid.
    """
    kind, expression = _translate(text)
    literal = text.encode()
    if kind == _REGEXP:
        return partial(_searches, _compile(expression)), expression, True
    if kind == _PREFIX:
        return lambda path: path.startswith(literal[:-2]), f"^{re2.escape(text[:-2])}", False
    if kind == _SUFFIX:
        suffix = literal[2:]
        whole = suffix[1:] if suffix.startswith(b"/") else None
        expression = f"{'(?:^|/)' if whole else ''}{re2.escape(text[2:].removeprefix('/'))}$"
        return lambda path: path.endswith(suffix) or path == whole, expression, False
    return lambda path: path == literal, f"^{re2.escape(text)}$", False


def _any(expressions: list[str]) -> Any | None:
    """One expression for all; if that would take too much memory, one that lets each be asked for
    itself.
    """
    try:
        return (
            _compile("|".join(f"(?:{expression})" for expression in expressions))
            if expressions
            else None
        )
    except re2.error:
        return _compile("")


def _compile(expression: str) -> Any:
    options = re2.Options()
    options.max_mem = _MAX_MEMORY
    options.log_errors = False
    options.never_capture = True
    return re2.compile(expression.encode(), options)


def _searches(expression: Any, path: bytes) -> bool:
    return expression.search(_text(path).encode()) is not None


def _translate(text: str) -> tuple[str, str]:
    """How to match (`Pattern.compile` in Go), and the regular expression if it takes one.

    `**` is any number of folders, also none; at the end, anything. Go does not treat characters in
    brackets apart, so neither do we: `[a*]` is the expression `[a[^/]*]`. It means to escape `|`,
    `{` and `}` too, but its table of what to escape has room for half of ASCII only, so in an
    expression these three keep their meaning.
    """
    kind, expression = _LITERAL, "^"
    for token in _TOKEN.finditer(text):
        part = token.group()
        if part.startswith("**"):
            at_end = token.end() == len(text)
            expression += ".*" if at_end else "(.*/)?"
            kind = _PREFIX if at_end and kind == _LITERAL else _REGEXP
            kind = _SUFFIX if token.start() == 0 else kind
        elif part in _ESCAPED:
            expression += f"\\{part}"
        elif part in _WILD or part.startswith("\\"):
            expression += _WILD.get(part, part)
            kind = _REGEXP
        else:
            expression += part
    return kind, f"{expression}$"


def _check_syntax(text: str) -> None:
    """`ValueError` where Go's `filepath.Match(text, ".")` finds bad syntax.

    It looks at the first chunk between stars only, and at the second if the first matches the `.`
    by itself.
    """
    chunk = _CHUNK.match(text)
    while chunk:
        if not _VALID_CHUNK.fullmatch(chunk[1]):
            raise ValueError(text)
        chunk = (
            _CHUNK.match(text, chunk.end())
            if chunk.start() == 0 and chunk[1] in (".", r"\.", "?")
            else None
        )
