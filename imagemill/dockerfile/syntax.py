"""Stages and instructions of a Dockerfile with their lines, so that a failure can be told by its
line.

Before 0.10, BuildKit names a failed step by its place in its stage and its text, but not by its
line. The grammar: https://docs.docker.com/reference/dockerfile/.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

from imagemill.patterns import Linear

_DIRECTIVE = Linear(r"#\s*(\w+)\s*=\s*(\S*)\s*$")
_FROM = re.compile(r"(?:--\S+\s+)*(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?", re.IGNORECASE)
_HEREDOC = re.compile(
    r"""(?<![<\d])\d?<<(?P<dash>-?)(?P<quote>["']?)(?P<end>[A-Za-z_]\w*)(?P=quote)"""
)
_VARIABLE = re.compile(r"\$\{[^}]{0,1000}\}|\$\w+|[\"'\\]")
_HEREDOC_KEYWORDS = frozenset({"RUN", "COPY", "ADD"})
_COUNTED = frozenset({"RUN", "COPY", "ADD", "WORKDIR"})


@dataclass(frozen=True)
class Instruction:
    """One instruction: the number of its first line, its keyword in capitals, and its text with the
    lines joined.
    """

    line: int
    keyword: str
    text: str

    @property
    def rest(self) -> str:
        """What stands after the keyword."""
        return "".join(self.text.split(maxsplit=1)[1:])

    def shown_as(self, text: str) -> bool:
        """Whether `text` is how BuildKit may show this instruction: in one line, with variables
        replaced.
        """
        shown, at = _squeezed(text), 0
        *parts, end = _VARIABLE.split(_squeezed(self.text))
        for part in parts:
            found = shown.find(part, at)
            if found < 0 or (at == 0 and found > 0):
                return False
            at = found + len(part)
        return shown.endswith(end) and len(shown) - len(end) >= at and (bool(parts) or shown == end)


@dataclass
class Stage:
    """One stage: its name or, as BuildKit calls those without a name, `stage-` and its number from
    0.
    """

    name: str
    named: bool
    instructions: list[Instruction] = field(default_factory=list)


@dataclass(frozen=True)
class Location:
    """Where BuildKit says that a step is: `[stage position/total]`, counted from 1; no stage where
    there is but one.
    """

    stage: str
    position: int
    total: int


def instructions(text: str, *, heredocs: bool = True) -> Iterator[Instruction]:
    """All instructions, in their order. Never fails: what cannot be read is an instruction with an
    odd keyword.

    Without `heredocs`, the lines of here-documents are read as if they were instructions, too.
    """
    # A mark of the byte order is none of the text, to builders too.
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    ends = _Ends(lines)
    continued = re.compile(rf"(?<!{_escape(lines)}){_escape(lines)}[ \t]*$")
    number = 0
    while number < len(lines):
        first = number
        joined, number = _joined(lines, number, continued)
        words = joined.split(maxsplit=1)
        if not words:
            continue
        keyword = words[0].upper()
        if heredocs and keyword in _HEREDOC_KEYWORDS:
            number = ends.after_heredocs(joined, number)
        yield Instruction(first + 1, keyword, joined)


def stages(text: str) -> list[Stage]:
    """Return the stages with their instructions, `FROM` not among them."""
    found: list[Stage] = []
    for instruction in instructions(text):
        if instruction.keyword == "FROM":
            match = _FROM.match(instruction.rest)
            name = match["name"] if match else None
            found.append(Stage(name.lower() if name else f"stage-{len(found)}", name is not None))
        elif found:
            found[-1].instructions.append(instruction)
    return found


def find(text: str, place: Location, shown: str) -> Instruction | None:
    """Return the instruction that BuildKit shows as `shown` at `place`; None if it stands in the
    base image (`ONBUILD`).
    """
    wanted = [stage for stage in stages(text) if place.stage in ("", stage.name)]
    if not wanted:
        return None
    counted = [
        instruction for instruction in wanted[-1].instructions if instruction.keyword in _COUNTED
    ]
    # The base counts as a step if it is an image; inherited ONBUILD instructions move the position,
    # not the total.
    last = place.position - (place.total - len(counted))
    return next((each for each in reversed(counted[: max(last, 0)]) if each.shown_as(shown)), None)


def _escape(lines: list[str]) -> str:
    """Return the escape character, for a pattern; a directive at the very top may set it."""
    for line in lines:
        directive = _DIRECTIVE.match(line)
        if not directive:
            break
        if directive[1].lower() == "escape" and directive[2] in ("\\", "`"):
            return re.escape(directive[2])
    return re.escape("\\")


def _joined(lines: list[str], number: int, continued: re.Pattern[str]) -> tuple[str, int]:
    """Return the logical line that begins at `number`, and the number of the line after it."""
    parts: list[str] = []
    while number < len(lines):
        line = lines[number]
        number += 1
        if line.lstrip().startswith("#") or (parts and not line.strip()):
            if parts:
                continue  # comments and empty lines do not end an instruction
            break
        part, goes_on = continued.subn("", line)
        parts.append(part)
        if not goes_on:
            break
    return "".join(parts).strip(), number


class _Ends:
    """Where here-documents can end: found once, since an instruction may open any number of them."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._numbers: dict[bool, dict[str, list[int]]] = {}

    def after_heredocs(self, joined: str, number: int) -> int:
        """Return the number of the line after the here-documents that the instruction opens."""
        for opened in _HEREDOC.finditer(joined):
            found = self._of(bool(opened["dash"])).get(opened["end"], [])
            at = bisect_left(found, number)
            number = found[at] + 1 if at < len(found) else number
        return number

    def _of(self, dash: bool) -> dict[str, list[int]]:
        """Return the numbers of lines by their text; with a dash tabs before it do not count."""
        if dash not in self._numbers:
            numbers: dict[str, list[int]] = {}
            for number, line in enumerate(self._lines):
                numbers.setdefault(line.lstrip("\t") if dash else line, []).append(number)
            self._numbers[dash] = numbers
        return self._numbers[dash]


def _squeezed(text: str) -> str:
    """In small letters, with single spaces: BuildKit may write the keyword and the spaces
    otherwise.
    """
    return " ".join(text.lower().split())
