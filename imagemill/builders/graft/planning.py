"""What a build will do, before it does it: which instructions run again, and because of what."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from imagemill.builders.graft import Refusal, recipe
from imagemill.builders.graft.copying import Context
from imagemill.builders.graft.recipe import CodeRecipe, Copy, GraftStage
from imagemill.context import Entry, Manifest
from imagemill.dockerfile.syntax import Instruction

_SILENT = recipe.METADATA | {"ONBUILD"}
"""Instructions that take no time."""

_AFTER = "after line "


@dataclass(frozen=True)
class PlannedStep:
    """An instruction, and why it runs again."""

    line: int
    instruction: str
    because: str | None = None
    """None where what it has made before is taken."""


@dataclass(frozen=True)
class EarlierTime:
    """How long a build of the source took."""

    way: Literal["code", "builder"]
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What is to be done."""

    way: Literal["nothing", "code", "builder"]
    """Nothing, since the image is the same; layers of code alone, without a builder; or a build."""
    why: str
    steps: tuple[PlannedStep, ...] = ()
    sent: int | None = None
    """Bytes of the files in the layers that are made anew, where those are known."""
    move: str | None = None
    """What to change in the Dockerfile so that a change of code is one of code alone."""

    before: tuple[EarlierTime, ...] = ()
    """How long the last builds took, newest first, where that is known."""

    def dump(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Known:
    """What differs from an earlier image."""

    paths: Collection[bytes] = field(default_factory=frozenset)
    """Of entries that are not the same in both, whichever has them."""
    others: tuple[str, ...] = ()
    """What differs besides, in words: all of it is built anew then."""
    before: Sequence[Entry] = ()
    """The entries of the earlier image."""


def plan(
    manifest: Manifest,
    target: str | None,
    known: Known,
    build_args: Mapping[str, str] | None = None,
) -> Plan:
    """Return what is to be done where `known` is all that differs; `Refusal` for a Dockerfile that
    cannot be read.
    """
    text = manifest.dockerfile.content.decode(errors="surrogateescape")
    stages = recipe.stages(text, build_args)
    contexts = (Context(known.before), Context(manifest.entries))
    if known.others:
        why = known.others[0]
        steps = _steps(stages, contexts, known.paths, first=why)
        return Plan("builder", why, steps, move=move(text, target, build_args))
    if not known.paths:
        return Plan("nothing", "all that counts is the same")
    steps = _steps(stages, contexts, known.paths)
    try:
        found = recipe.read(text, target, build_args)
    except Refusal as refusal:
        return Plan("builder", refusal.reason, steps, move=move(text, target, build_args))
    early = _seen(contexts, found.read_before) & set(known.paths)
    if early:
        return Plan("builder", f"{_shown(min(early))} counts before the code does", steps)
    return Plan(
        "code", "the last instructions alone see what has changed", steps, _sent(found, contexts[1])
    )


def move(text: str, target: str | None, build_args: Mapping[str, str] | None = None) -> str | None:
    """Which line to move so that a change of code is one of code alone; None where it is so."""
    try:
        recipe.read(text, target, build_args)
    except Refusal:
        pass
    else:
        return None
    whole = recipe.stages(text, build_args)[-1].instructions
    copies = [
        number
        for number, each in enumerate(whole)
        if each.keyword in ("COPY", "ADD") and recipe.reads([each])
    ]
    if not copies:
        return None
    code = whole[copies[-1]]
    after = [each for each in whole[copies[-1] + 1 :] if each.keyword not in _SILENT]
    if not after:
        return None
    lines = ", ".join(f"line {each.line} ({each.keyword})" for each in after)
    return (
        f"move {lines} before line {code.line} ({code.text[:60]}), and copy by name before it the"
        " files that it needs"
    )


def _steps(
    stages: Iterable[GraftStage],
    contexts: Iterable[Context],
    paths: Collection[bytes],
    first: str | None = None,
) -> tuple[PlannedStep, ...]:
    """All instructions that take time; `first` is why the very first of them runs."""
    anew: dict[str, str] = {}
    found: list[PlannedStep] = []
    for number, stage in enumerate(stages):
        because = anew.get(stage.base.lower()) or first
        for instruction in stage.instructions:
            if instruction.keyword in _SILENT:
                continue
            because = because or _cause(instruction, contexts, paths, anew)
            found.append(PlannedStep(instruction.line, instruction.text, because))
            if because and not because.startswith(_AFTER):
                because = f"{_AFTER}{instruction.line}"
        if because:
            anew |= {
                name: f"stage {stage.name or number}" for name in (stage.name, str(number)) if name
            }
    return tuple(found)


def _cause(
    instruction: Instruction,
    contexts: Iterable[Context],
    paths: Collection[bytes],
    anew: Mapping[str, str],
) -> str | None:
    for stage in recipe.taken_from(instruction):
        if stage.lower() in anew:
            return anew[stage.lower()]
    seen = _seen(contexts, recipe.reads([instruction])) & set(paths)
    if not seen:
        return None
    more = f" and {len(seen) - 1} more" if len(seen) > 1 else ""
    return f"{_shown(min(seen))}{more}"


def _seen(contexts: Iterable[Context], patterns: Iterable[str]) -> set[bytes]:
    return {
        path
        for context in contexts
        for pattern in patterns
        for part in context.seen(pattern)
        for path in part.paths
    }


def _sent(found: CodeRecipe, context: Context) -> int:
    files = {
        path: size
        for operation in found.operations
        if isinstance(operation, Copy)
        for source in operation.sources
        for part in context.seen(source)
        for path, size in zip(part.paths, part.sizes, strict=True)
    }
    return sum(files.values())


def _shown(path: bytes) -> str:
    return path.decode(errors="backslashreplace")
