"""Text on a terminal or in a file, among it other people's.

What others have written (log lines, file names, messages of servers) may hold control sequences
that would change the terminal: it passes `printable` before it is shown, and is never read as
rich's markup.
"""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from imagemill.environment import everything
from imagemill.text import printable

if TYPE_CHECKING:
    from rich.console import Console

AMOUNT_SECONDS = 5.0
"""Between two lines that say how far something has come, where they stay in view."""


def console(*, stderr: bool = False) -> "Console":
    """Return standard output or error, where text is shown as it is and lines are not broken."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


_COLOURS = {"FORCE_COLOR", "TTY_COMPATIBLE"}
"""Variables by which rich takes what is no terminal for one."""

_OPTIONS = {
    "destination": "--destination",
    "dockerfile": "--file PATH",
    "entrypoint": "--entrypoint",
    "python": "--python",
    "secrets": "--secret id=ID",
    "timeout": "--timeout",
}
"""Field of a request → the option that gives it, for hints, who know no command line."""


def show_log(lines: Iterable[str]) -> None:
    """Quote log lines on standard error."""
    for line in lines:
        write((f"  | {printable(line)}", "dim"), stderr=True)


def error(message: str, hint: str = "", log: Iterable[str] = (), field: str = "") -> None:
    """Say on standard error what went wrong, after the log lines that lead to it, and what to do
    about it; `field` is the field of the request that the hint is about.
    """
    show_log(log)
    write(("error: ", "bold red"), printable(message), stderr=True)
    if hint and field in _OPTIONS:
        hint = f"{hint} ({_OPTIONS[field]})"
    if hint:
        write(("hint: ", "bold cyan"), printable(hint), stderr=True)


def say(message: str) -> None:
    """Say on standard error what is being done."""
    write((printable(message), "dim"), stderr=True)


def warn(message: str) -> None:
    """Say on standard error what is not as it should be."""
    write(("warning: ", "bold yellow"), printable(message), stderr=True)


def write(*parts: str | tuple[str, str], stderr: bool = False) -> None:
    """Print a line of texts, each plain or with its style."""
    stream = sys.stderr if stderr else sys.stdout
    if not stream.isatty() and not _COLOURS & everything().keys():
        # What shows text on a terminal takes a while to import.
        text = "".join(part if isinstance(part, str) else part[0] for part in parts)
        print(text, file=stream, flush=True)
        return
    from rich.text import Text

    console(stderr=stderr).print(Text.assemble(*parts))
