"""Reads from a Dockerfile what its stages stand on, without the values that a build gives for its
arguments.

Variables in FROM:
https://docs.docker.com/reference/dockerfile/#understand-how-arg-and-from-interact. The Dockerfile
is whatever somebody wrote, so no text here may grow, or take time, beyond its own length.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from imagemill.dockerfile.syntax import Instruction, instructions

_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?", re.IGNORECASE)
_VARIABLE = re.compile(
    r"\$(?:(?P<bare>\w+)|\{(?P<name>\w+)(?:(?P<operator>:?[-+])(?P<word>(?:[^{}]|\$\{[^{}]*\})*))?\})"
)
_ARGUMENT = re.compile(r"([A-Za-z_]\w*)(?:=(\"[^\"]*\"|'[^']*'|\S*))?")
_OTHER = re.compile(r"from=[\"']?([^\s,\"']+)", re.IGNORECASE)
_THE_BUILDERS_OWN = frozenset(
    f"{whose}{what}"
    for whose in ("TARGET", "BUILD")
    for what in ("PLATFORM", "OS", "ARCH", "VARIANT")
) | {"TARGETSTAGE"}
"""Arguments that the builder sets."""

_LONGEST = 512
"""Characters of a base image or of a default; longer ones are no image, but may be made to double
over and over.
"""

_MOST_COMPARISONS = 1_000_000
"""Here-documents times lines: what it may take to find where they all end."""


class FromLine(NamedTuple):
    """One stage of a Dockerfile."""

    name: str
    """As it is written; empty for a stage without one."""
    base: str
    """What it begins from: an image, or an earlier stage. Variables that have no default, or
    another value than their default, stand in it as they were written.
    """


def stages(dockerfile: str, given: Collection[str] = ()) -> tuple[FromLine, ...]:
    """Return the stages, in their order; none if the Dockerfile is not one that could be built.

    `given` are the names of the arguments for which the build has values: those may be secrets, and
    are not shown.
    """
    found = used_stages(dockerfile, {}, _THE_BUILDERS_OWN.union(given))
    return tuple(FromLine(stage.name, stage.base) for stage in found)


def bases(
    dockerfile: str, build_args: Mapping[str, str], target: str | None = None
) -> tuple[str | None, ...]:
    """Return the image that each stage stands on, with the build's arguments in their places.

    None for a stage that stands on another one or on nothing, that the target (default: the last
    stage) does not need, whose image is named by its digest, or by a variable of which no value is
    known here.
    """
    found = used_stages(dockerfile, build_args)
    wanted = needed(found, target)
    return tuple(
        stage.base if number in wanted and _is_open(stage.base, found[:number]) else None
        for number, stage in enumerate(found)
    )


def needed(found: "Sequence[UsedStage]", target: str | None) -> set[int]:
    """Return the numbers of the stages that the target (default: the last stage) is made of."""
    names = {str(number): number for number in range(len(found))}
    names |= {stage.name.lower(): number for number, stage in enumerate(found) if stage.name}
    waiting = [names.get((target or str(len(found) - 1)).lower(), -1)]
    wanted: set[int] = set()
    while waiting:
        number = waiting.pop()
        if 0 <= number < len(found) and number not in wanted:
            wanted.add(number)
            stage = found[number]
            waiting += [names.get(other.lower(), -1) for other in (stage.base, *stage.uses)]
    return wanted


class UsedStage(NamedTuple):
    """One stage of a build."""

    name: str
    base: str
    uses: list[str]
    """What it copies from or mounts: stages or images."""


def used_stages(
    dockerfile: str, build_args: Mapping[str, str], hidden: Collection[str] = ()
) -> list[UsedStage]:
    """Return the stages with values in the place of variables, but for those that are hidden."""
    if dockerfile.count("<<") * dockerfile.count("\n") > _MOST_COMPARISONS:
        return []
    values: dict[str, str] = {}
    found: list[UsedStage] = []
    for instruction in instructions(dockerfile):
        if instruction.keyword == "ARG" and not found:
            declare(instruction, build_args, values, hidden)
        elif instruction.keyword == "FROM" and (match := _FROM.match(instruction.text)):
            base = resolved(match["base"].strip("\"'"), values, hidden)
            found.append(UsedStage(match["name"] or "", base, []))
        elif found and instruction.keyword in ("COPY", "ADD", "RUN"):
            found[-1].uses.extend(_OTHER.findall(instruction.text))
    return found


def declare(
    instruction: Instruction,
    build_args: Mapping[str, str],
    values: dict[str, str],
    hidden: Collection[str] = (),
) -> None:
    """Add to the `values` of arguments those that an ARG before the first FROM declares."""
    for name, default in arguments(instruction):
        value = build_args.get(name, default)
        if value is not None:
            values[name] = resolved(value, values, hidden)


def _is_open(base: str, before: list[UsedStage]) -> bool:
    """Whether what a stage stands on is an image whose content may change under its name."""
    names = {stage.name.lower() for stage in before}
    return base.lower() not in {"scratch", "", *names} and not {"$", "@"} & set(base)


def arguments(instruction: Instruction) -> Iterator[tuple[str, str | None]]:
    """Yield the name of each argument that an `ARG` declares, and its default."""
    for argument in _ARGUMENT.finditer(instruction.rest):
        default = argument[2]
        yield argument[1], default if default is None else default.strip("\"'")


def resolved(text: str, defaults: Mapping[str, str], hidden: Collection[str] = ()) -> str:
    """Return the text with the defaults of variables in their places; what would get too long stays
    as it is.
    """

    def value(variable: re.Match[str]) -> str:
        name, word = variable["bare"] or variable["name"], variable["word"]
        if name in hidden:
            return variable[0]
        operator = variable["operator"] or ""
        # With a colon what is empty is as good as not set.
        given = bool(defaults.get(name)) if operator.startswith(":") else name in defaults
        if operator.endswith("+"):
            return resolved(word, defaults, hidden) if given else ""
        if word is not None and not given:
            return resolved(word, defaults, hidden)
        return defaults.get(name, variable[0])

    cut = text[:_LONGEST]
    long = _VARIABLE.sub(value, cut)
    return long if len(long) <= _LONGEST else cut
