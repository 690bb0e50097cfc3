"""Reads what `docker build` prints: hands on the lines worth reading, and keeps what tells why it
failed.

BuildKit's plain progress (`#5 0.216 text`) is the same in Docker 20.10 and in the buildx plugin:
https://github.com/moby/buildkit/blob/master/util/progress/progressui/printer.go. The classic
builder's output is that of the instructions, with a line before each of them.
"""

import re
from collections import deque
from collections.abc import Callable

from imagemill.meter import rate
from imagemill.text import amount, without_escapes

TAIL = 30
"""How many of the last lines of output are kept, to tell a failure by."""

_VERTEX = re.compile(r"#(\d+) (.*)", re.DOTALL)
_OUTPUT = re.compile(r"\d+\.\d+ (.*)", re.DOTALL)
_RESULT = re.compile(r"(?:DONE|CACHED|CANCELED)\b")
_QUIET = re.compile(r"\[internal\] load (?:build definition|\.dockerignore)|building with ")
_NOISE = re.compile(
    r"DONE 0\.0s|\.\.\.$|(?:extracting |writing image |exporting \w+ )?sha256:|(?:naming|unpacking) to "
    r"|(?:transferring|resolve|exporting) (?!.*done$)"
)
_SENT = re.compile(r"transferring context: ([\d.]+ ?[kMG]?B)(?: ([\d.]+)s)?")
_LAYER = re.compile(
    r"sha256:([0-9a-f]{12,64}) ([\d.]+ ?[kMG]?B) / ([\d.]+ ?[kMG]?B)(?: ([\d.]+)s)?"
)
_UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_MOST_SHOWN = 100
"""Characters of what is shown of a line that goes on."""
_SOURCE = re.compile(r"[^\s:]+:(\d+)$")
_CHATTER = re.compile(r"View build details|See 'docker|Usage:|Run 'docker")
_CLASSIC_NOISE = re.compile(
    r" ---> |Removing intermediate container|Sending build context|Successfully "
    r"|DEPRECATED:|  +BuildKit is currently|  +environment-variable\.$"
)
_BLOCK = "------"


class BuildLog:
    """What `docker build` has said so far; `log` gets each line that is worth reading.

    `step` is the step that failed as BuildKit shows it (`[2/3] RUN make`), empty if it was in none;
    `fault` is what was wrong with it; `source_line` is the line of the Dockerfile, if BuildKit
    names it (since 0.10); `output` are the last lines that instructions have printed.
    """

    def __init__(
        self, log: Callable[[str], None], amount: Callable[[str], None] = lambda text: None
    ) -> None:
        self._log, self._amount = log, amount
        self._layers: dict[str, tuple[float, float, float]] = {}
        """Layer that is pulled → bytes that have come, and all, and the seconds since it began."""
        self.step = ""
        self.fault = ""
        self.source_line: int | None = None
        self.output: deque[str] = deque(maxlen=TAIL)
        self._names: dict[str, str] = {}
        self._told: str | None = None
        """The step whose amount is shown, by its number; empty where that is not known."""
        self._loose: deque[str] = deque(maxlen=TAIL)
        self._in_block = False

    @property
    def error(self) -> str:
        """The last word of BuildKit or of the CLI."""
        errors = [line for line in self._loose if line.startswith("ERROR: ")]
        return (errors or list(self._loose) or [self.fault])[-1]

    def read(self, line: str) -> None:
        """Take the next line of the output, without its line end."""
        line = clean(line)
        if match := _VERTEX.match(line):
            self._read_vertex(match[1], match[2])
        elif line == _BLOCK:
            self._in_block = not self._in_block  # repeats the step that failed and its last lines
        elif line.strip() and not self._in_block:
            self._read_loose(line)

    def read_unfinished(self, line: str) -> None:
        """Take a line that goes on, of which a terminal would show what came last."""
        begun, match = _VERTEX.match(line), _VERTEX.match(text := clean(line))
        output = _OUTPUT.match(match[2]) if match else None
        if shown := (output[1] if output else text).strip():
            self._tell(begun[1] if begun else "", shown[:_MOST_SHOWN])

    def _tell(self, number: str | None, text: str) -> None:
        self._told = number
        self._amount(text)

    def _finish(self, number: str) -> None:
        """Let no amount stay that may be of this step, which has gone on or ended."""
        if self._told in (number, ""):
            self._tell(None, "")

    def _tell_amount(self, number: str, text: str) -> None:
        """Say how much of the context was sent, or of base images pulled, if the line says it."""
        if match := _SENT.match(text):
            fast = rate(size_of(match[1]), float(match[2] or 0))
            self._tell(number, f"{match[1]} sent to the engine{fast}")
        elif match := _LAYER.match(text):
            self._layers[match[1]] = size_of(match[2]), size_of(match[3]), float(match[4] or 0)
            done, whole, took = zip(*self._layers.values(), strict=True)
            told = f"{amount(int(sum(done)))} of {amount(int(sum(whole)))} pulled"
            self._tell(number, told + rate(sum(done), max(took)))

    def _read_vertex(self, number: str, text: str) -> None:
        name = self._names.setdefault(number, text)
        if not _QUIET.match(name):  # the ignore file is sent as a context, too
            self._tell_amount(number, text)
        output = _OUTPUT.match(text)
        if output or _RESULT.match(text) or text.startswith("ERROR: "):
            self._finish(number)
        if output:
            self.output.append(output[1])
            self._log(output[1])
        elif text.startswith("ERROR: "):
            if not self.fault:
                self.step, self.fault = name, text.removeprefix("ERROR: ")
            self._log(text)
        elif not (_QUIET.match(name) or _NOISE.match(text)):
            self._log(text)

    def _read_loose(self, line: str) -> None:
        if source := _SOURCE.match(line):
            self.source_line = int(source[1])
        if not _CHATTER.match(line):
            self._loose.append(line)
            self._log(line)


class ClassicLog(BuildLog):
    """The same for the classic builder, where an instruction's own output is not marked."""

    @property
    def error(self) -> str:
        return self.output[-1] if self.output else ""

    def read(self, line: str) -> None:
        self._finish("")
        line = clean(line)
        if line.startswith("Step "):
            self.step = line
        if line.strip() and not _CLASSIC_NOISE.match(line):
            self.output.append(line)
            self._read_loose(line)


def size_of(text: str) -> float:
    """Return the bytes in a size as docker writes it: `12.3MB`."""
    number = text.rstrip("kMGB ")
    return float(number) * _UNITS[text[len(number) :].strip()]


def clean(line: str) -> str:
    """Return what a terminal would show of the line at the end: no colours, and the last state of a
    progress bar.
    """
    return without_escapes(line.rstrip("\r").rpartition("\r")[2])
