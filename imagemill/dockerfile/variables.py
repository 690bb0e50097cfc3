"""Puts values in the place of variables in a stage's instructions, where the Dockerfile itself says
beyond doubt what they are: what it sets by `ENV`, which nothing overrides.

https://docs.docker.com/reference/dockerfile/#environment-replacement
"""

import re
from dataclasses import dataclass, field, replace

from imagemill.dockerfile.syntax import Instruction

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_ASSIGNED = re.compile(
    rf"({_NAME})=((?:[^\s\"'\\]|\\.|\"(?:[^\"\\]|\\.)*\"|'[^']*')*)(?:\s+|$)", re.DOTALL
)
_ASSIGNED_ALONE = re.compile(rf"({_NAME})[ \t]+(.*)", re.DOTALL)
"""The older form, of one variable and no equals sign."""

_VARIABLE = re.compile(rf"\$(?:({_NAME})(?!\w)|\{{({_NAME})\}})")
_PLAIN = re.compile(r"[A-Za-z0-9_./@:+-]{1,256}")
"""Longer ones are no paths, but may be made to double over and over."""
_LONGEST = 8192
_QUOTED = re.compile(r"[\\']")
_EXPANDED = frozenset({"ADD", "COPY", "WORKDIR"})


@dataclass
class Variables:
    """What is known of a stage's environment, instruction by instruction."""

    values: dict[str, str] = field(default_factory=dict)

    def expand(self, instruction: Instruction) -> Instruction:
        """Return the instruction with values, and learn what it sets; variables of which nothing is
        known stay as they are written.
        """
        if instruction.keyword == "ENV":
            self._set(instruction.rest)
        text = instruction.text
        if instruction.keyword not in _EXPANDED or _QUOTED.search(text) or "--from=" in text:
            return instruction
        return replace(instruction, text=self._expanded(text))

    def _set(self, text: str) -> None:
        found: dict[str, str] = {}
        at = 0
        if match := _ASSIGNED_ALONE.fullmatch(text):
            found[match[1]], at = self._expanded(match[2]), len(text)
        while match := _ASSIGNED.match(text, at):
            found[match[1]] = self._expanded(match[2].strip('"'))
            at = match.end()
        if at < len(text):  # in a way that we do not read
            self.values.clear()
            return
        for name, value in found.items():
            self.values.pop(name, None)
            if _PLAIN.fullmatch(value):
                self.values[name] = value

    def _expanded(self, text: str) -> str:
        long = _VARIABLE.sub(lambda name: self.values.get(name[1] or name[2], name[0]), text)
        return long if len(long) <= _LONGEST else text
