"""Text on a terminal or in a file, among it other people's.

What others have written (log lines, file names, messages of servers) may hold control sequences
that would change the terminal: it passes `printable` before it is shown, and is never read as
rich's markup.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from imagemill.text import printable

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> "Console":
    """Return standard output or error, where text is shown as it is and lines are not broken."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


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
        _tell((f"  | {printable(line)}", "dim"))


def error(message: str, hint: str = "", log: Iterable[str] = (), field: str = "") -> None:
    """Say on standard error what went wrong, after the log lines that lead to it, and what to do
    about it; `field` is the field of the request that the hint is about.
    """
    show_log(log)
    _tell(("error: ", "bold red"), printable(message))
    if hint and field in _OPTIONS:
        hint = f"{hint} ({_OPTIONS[field]})"
    if hint:
        _tell(("hint: ", "bold cyan"), printable(hint))


def say(message: str) -> None:
    """Say on standard error what is being done."""
    _tell((printable(message), "dim"))


def warn(message: str) -> None:
    """Say on standard error what is not as it should be."""
    _tell(("warning: ", "bold yellow"), printable(message))


def _tell(*parts: str | tuple[str, str]) -> None:
    """Print a line of texts, each plain or with its style."""
    # What shows text takes a while to import, and most commands have nothing to say.
    from rich.text import Text

    console(stderr=True).print(Text.assemble(*parts))
