"""How a build is shown while it runs on a terminal."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from imagemill.cli.render import STEPS, seconds
from imagemill.messages import State
from imagemill.state.journal import Event
from imagemill.text import printable

_LOG_LINES = 10

_NARROW = 84
"""Columns below which an amount has a line of its own: beside the step it needs as many."""


@dataclass
class _Step:
    state: State
    began: float
    ended: float | None = None


class LiveView:
    """All steps with their times, a spinner on the one that runs, the last lines of the log."""

    log_shown = False

    def __init__(self, out: Console) -> None:
        self._build = ""
        self._steps: list[_Step] = []
        self._lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._note = self._amount = ""
        self._failed = False
        ascii_only = out.options.ascii_only
        self._done, self._broken = ("+", "x") if ascii_only else ("✓", "✗")
        self._spinner = Spinner("line" if ascii_only else "dots", style="cyan")
        self._live = Live(self, console=out, refresh_per_second=10)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._lines.clear()
        self._note = ""
        if kind is not None and self._steps:
            self._end(time.time(), failed=True)
        self._live.stop()
        self._live.console.print()

    def identify(self, build: str) -> None:
        self._build = build

    def show(self, event: Event) -> None:
        if event.line is not None:
            self._lines.extend(printable(event.line).splitlines())
        elif event.amount is not None:
            self._amount = printable(event.amount)
        elif event.report is not None:
            self._end(event.at, failed=event.report.error is not None)
        elif event.state is not None and (not self._steps or event.state != self._steps[-1].state):
            self._end(event.at)
            self._note = self._amount = ""
            self._steps.append(_Step(event.state, event.at))

    def note(self, text: str) -> None:
        self._note = text

    def _end(self, at: float, *, failed: bool = False) -> None:
        if self._steps and self._steps[-1].ended is None:
            self._steps[-1].ended = at
            self._failed = failed

    def __rich_console__(self, out: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        if self._build:
            yield Text(f"  build {self._build}", "dim", no_wrap=True, overflow="ellipsis")
        beside = options.max_width >= _NARROW
        below = self._amount if not beside and self._steps and not self._steps[-1].ended else ""
        room = max(1, options.size.height - bool(self._build) - bool(below) - 2)
        steps = self._steps[-room:]
        for step in steps:
            yield self._row(step, self._amount if beside else "")
        if below:
            yield Text(f"    {below}", "dim", no_wrap=True, overflow="ellipsis")
        room -= len(steps)
        lines = list(self._lines)[-room:] if room else []
        for line in lines:
            yield Text(f"    {line}", "dim", no_wrap=True, overflow="ellipsis")
        if self._note:
            yield Text(f"  {self._note}", "yellow")

    def _row(self, step: _Step, amount: str) -> Text:
        if step.ended is None:
            mark = self._spinner.render(time.monotonic())
            assert isinstance(mark, Text)
        elif self._failed and step is self._steps[-1]:
            mark = Text(self._broken, "red")
        else:
            mark = Text(self._done, "green")
        took = max(0.0, (step.ended or time.time()) - step.began)
        return Text.assemble(
            "  ",
            mark,
            f" {STEPS[step.state]:<16}",
            (f"{seconds(took):>9}", "dim"),
            (f"  {amount}" if step.ended is None and amount else "", "dim"),
            no_wrap=True,
            overflow="ellipsis",
        )
