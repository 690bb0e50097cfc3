"""How a build is shown while it runs: live on a terminal, as plain lines elsewhere, or not at
all.
"""

import sys
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from imagemill.cli.terminal import AMOUNT_SECONDS, console, write
from imagemill.messages import State
from imagemill.state.journal import Event
from imagemill.text import printable

_DOING = {
    State.QUEUED: "waiting for a worker",
    State.LOADING: "loading the config",
    State.HASHING: "hashing the source",
    State.CHECKING: "asking the registry for the image",
    State.UPLOADING: "packing and uploading the context",
    State.BUILDING: "building the image",
    State.PUSHING: "bringing the image into the registry",
    State.VERIFYING: "checking the image in the registry, and tagging it there",
    State.REPORTING: "reporting",
}


class View(Protocol):
    """Shows a build while its block runs."""

    log_shown: bool
    """Whether all lines of the log were shown, and stay in view."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def identify(self, build: str) -> None:
        """Show the id by which the build can be looked at from elsewhere."""

    def show(self, event: Event) -> None:
        """Show one more event of the build."""

    def note(self, text: str) -> None:
        """Tell the viewer something; may be called from any thread."""


class NoView:
    """Shows nothing."""

    log_shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def identify(self, build: str) -> None:
        pass

    def show(self, event: Event) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class PlainView(NoView):
    """A line for each state, and the log as it comes."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._state: State | None = None
        self._told = 0.0

    def identify(self, build: str) -> None:
        self._print(f"build {build}")

    def show(self, event: Event) -> None:
        if event.line is not None:
            self._print(event.line)
            self.log_shown = True
        elif event.amount is not None:
            if event.amount and event.at - self._told >= AMOUNT_SECONDS:
                self._told = event.at
                self._print(event.amount)
        elif event.state is not None and event.state != self._state:
            self._state, self._told = event.state, event.at
            self._print(f"[{event.state}] {_DOING[event.state]}")

    def note(self, text: str) -> None:
        self._print(text)

    def _print(self, text: str) -> None:
        self._write(printable(text))


def view_for(*, as_json: bool, verbose: bool, progress: str = "auto") -> View:
    """Return the view for where output goes. What is piped is the report's or the image's alone:
    there the progress goes to standard error.
    """
    if progress == "quiet" or (as_json and not verbose):
        return NoView()
    stderr = as_json or not sys.stdout.isatty()
    # Not rich's own question: it says yes in a pipe where colours are forced.
    on_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    live = on_terminal and not as_json and not console(stderr=stderr).is_dumb_terminal
    if not (live if progress == "auto" else progress == "tty"):
        return PlainView(partial(write, stderr=stderr))
    from imagemill.cli.live import LiveView

    return LiveView(console(stderr=stderr))
