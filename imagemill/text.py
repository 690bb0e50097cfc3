"""Text that somebody else wrote, made fit to be shown: to a terminal, or in one line of a log or a
message.
"""

import re

_ESCAPE_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[]PX^_].*?(?:\x07|\x1b\\|\Z)"  # OSC and other strings: titles, links, the clipboard
    r"|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)
_CONTROL_CHARACTERS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)
"""C0 but tab and newline, C1, separators of lines, and what changes the direction of text."""


def printable(text: str) -> str:
    """Return the text, of several lines perhaps, without what a terminal would obey rather than
    show.
    """
    return _CONTROL_CHARACTERS.sub("", without_escapes(text))


def without_escapes(text: str) -> str:
    """Return the text without colours and other sequences that a terminal obeys."""
    return _ESCAPE_SEQUENCES.sub("", text)


def shortened(text: str, most: int = 300) -> str:
    """Return what a server or a program said as one printable line, with one blank for many."""
    return one_line(" ".join(without_escapes(text).split()), most)


def one_line(text: str, most: int = 300) -> str:
    """Return at most `most` characters of the text as one printable line; `…` stands for the rest.

    A blank stands for each line end, tab and other character that is none to look at, so nobody's
    text can begin a line of its own in a log.
    """
    shown = without_escapes(text)
    if len(shown) > most:
        shown = f"{shown[: most - 1]}…"
    if not shown.isprintable():
        shown = "".join(each if each.isprintable() else " " for each in shown)
    return shown


def amount(size: int) -> str:
    """Return so many bytes as people read them: `12 kB`, `1.2 GB`."""
    number = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 999.5 or unit == "GB":
            break
        number /= 1000
    exact = unit != "bytes" and number < 9.95
    return f"{number:.1f} {unit}" if exact else f"{number:.0f} {unit}"
