"""Text files that people bring, read in the encoding that their first bytes name.

PowerShell's `>` writes UTF-16, Windows' editors put a mark before UTF-8. A file that cannot be read
is an error that says so: taken for empty, it would mean something else than was written.
"""

import codecs
import json
from typing import Any

from imagemill.errors import UserError

# UTF-32's little-endian mark begins with UTF-16's, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
)


def decoded(content: bytes, name: str) -> str:
    """Return the text of the file called `name`: by its byte-order mark, which is left out, else as
    UTF-8.

    `UserError` with the line where it is no text, or has a NUL in it, as UTF-16 without a mark has.
    """
    encoding, called = next(
        ((encoding, called) for mark, encoding, called in _MARKS if content.startswith(mark)),
        ("utf-8", "UTF-8"),
    )
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, errors="replace").count("\n") + 1
        raise _unreadable(name, line, f"this is not {called}") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise _unreadable(name, line, "there is a NUL character in it, as in UTF-16 without a mark")
    return text


def json_value(text: str | bytes) -> Any:
    """Return what JSON says that somebody else wrote; `ValueError` if it is none, or is nested too
    deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def is_marked(content: bytes) -> bool:
    """Return whether the file says by its first bytes that it is another encoding than UTF-8."""
    return any(content.startswith(mark) for mark, encoding, _ in _MARKS if encoding != "utf-8-sig")


def _unreadable(name: str, line: int, what: str) -> UserError:
    return UserError(f"{name}:{line}: {what}", "save the file as UTF-8")
