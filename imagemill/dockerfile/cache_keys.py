"""What the instructions of a Dockerfile are known by in BuildKit's cache, files of the context apart:
by themselves, by what they are run with, and by all that they stand on.

https://docs.docker.com/build/cache/invalidation/. What changes the image's config alone makes no
layer, and so is none of them. What is said here of two Dockerfiles is rather too little than too
much: a key that both have is one that BuildKit takes for the same.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from imagemill.dockerfile.base_images import arguments, needed, used_stages
from imagemill.dockerfile.syntax import Instruction, instructions

LAYERED = frozenset({"RUN", "COPY", "ADD", "WORKDIR"})
"""Instructions that make a layer."""

RUN_WITH = frozenset({"ENV", "SHELL", "USER"})
"""Instructions that change how others are run."""

_DIGITS = 16
"""Of a digest: enough to see a difference."""


@dataclass(frozen=True)
class Keyed:
    """An instruction that makes a layer, or a FROM."""

    stage: int
    instruction: Instruction
    key: str


@dataclass
class _State:
    """What the next instruction of a stage stands on, and a digest of what it is run with."""

    key: str
    settings: str = ""

    def take(self, keyword: str, text: str) -> None:
        """Go on to what stands on this instruction."""
        if keyword in RUN_WITH:
            self.settings = _key(self.settings, text)
        elif keyword in LAYERED:
            matters = keyword == "RUN" or "$" in text
            self.key = _key(self.key, text, self.settings if matters else None)


def keyed(
    dockerfile: str,
    build_args: Mapping[str, str],
    *,
    target: str | None = None,
    platform: str | None = None,
    digests: Mapping[str, str] | None = None,
) -> Iterator[Keyed]:
    """Yield each FROM, and each instruction that makes a layer, of the stages that are built; with
    the `digests` of base images that are known.
    """
    stages = used_stages(dockerfile, build_args)
    wanted = needed(stages, target)
    above: dict[str, str] = {}
    below: dict[str, _State] = {}
    number, state = -1, _State("")
    for instruction, text in _whole(dockerfile):
        keyword = instruction.keyword
        if keyword == "FROM" and number + 1 < len(stages):
            number += 1
            name, base, _ = stages[number]
            first = _State(_key(base, platform, (digests or {}).get(base)))
            state = replace(below.get(base.lower(), first))
            below |= {each.lower(): state for each in (name, str(number)) if each}
        elif keyword == "ARG":
            if values := _values(instruction, build_args, above):
                above |= values if number < 0 else {}
                state.settings = _key(state.settings, *values, *values.values())
        else:
            state.take(keyword, text)
        if number in wanted and keyword in LAYERED | {"FROM"}:
            yield Keyed(number, instruction, state.key)


def _whole(dockerfile: str) -> Iterator[tuple[Instruction, str]]:
    """Yield each instruction with its text; its here-documents belong to it."""
    lines, found = dockerfile.split("\n"), list(instructions(dockerfile))
    ends = [each.line - 1 for each in found[1:]] + [len(lines)]
    for instruction, end in zip(found, ends, strict=False):
        heredocs = "<<" in instruction.text
        yield (
            instruction,
            "\n".join(lines[instruction.line - 1 : end] if heredocs else [instruction.text]),
        )


def _values(
    instruction: Instruction, build_args: Mapping[str, str], above: Mapping[str, str]
) -> dict[str, str]:
    """Return the arguments that an ARG declares and that have a value."""
    found = {
        name: build_args.get(name, above.get(name) if default is None else default)
        for name, default in arguments(instruction)
    }
    return {name: value for name, value in found.items() if value is not None}


def _key(*parts: str | None) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_DIGITS]
