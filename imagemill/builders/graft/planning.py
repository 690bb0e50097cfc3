"""What a build will do, before it does it: which instructions run again, and because of what."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any, Literal

from imagemill.builders.graft import Refusal, recipe
from imagemill.builders.graft.copying import Context
from imagemill.builders.graft.recipe import CodeRecipe, Copy
from imagemill.context import Entry, Manifest
from imagemill.dockerfile.base_images import used_stages
from imagemill.dockerfile.cache_keys import RUN_WITH, keyed
from imagemill.dockerfile.syntax import Instruction, Stage
from imagemill.dockerfile.syntax import stages as stages_of
from imagemill.state.last_builds import EarlierTime

_AFTER = "after line "


@dataclass(frozen=True)
class PlannedStep:
    """An instruction, and why it runs again."""

    line: int
    instruction: str
    because: str | None = None
    """None where what it has made before is taken."""


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
    """What differs besides, in words: the code alone is not enough then."""
    before: Sequence[Entry] = ()
    """The entries of the earlier image."""
    keys: Collection[str] | None = None
    """What its instructions are known by; None where that is not known: all run anew then, where
    anything but files differs.
    """
    same: bool = True
    """Whether there is nothing to do where no file and nothing else differs."""
    gone: tuple[str, ...] = ()
    """Labels of the earlier image that are not given any more."""


@dataclass(frozen=True)
class Wanted:
    """What is to be built."""

    manifest: Manifest
    target: str | None = None
    platform: str | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of base images, where they count."""

    @property
    def text(self) -> str:
        """The Dockerfile."""
        return self.manifest.dockerfile.content.decode(errors="replace")


def plan(wanted: Wanted, known: Known) -> Plan:
    """Return what is to be done where `known` is all that differs; `Refusal` where a build is bound
    to fail.
    """
    final = _final(_stages(wanted.text), wanted.target)
    if not known.others and not known.paths and known.same:
        return Plan("nothing", "all that counts is the same")
    contexts = (Context(known.before), Context(wanted.manifest.entries))
    steps = _steps(wanted, contexts, known)
    why, found = _why(wanted, contexts, known)
    if found is not None:
        return Plan("code", why, steps, _sent(found, contexts[1]))
    if wanted.manifest.dockerfile.generated:  # it has no lines that anybody could move
        return Plan("builder", why, steps)
    moved = _move(final, contexts, known, stopped=_is_stopped(wanted))
    return Plan("builder", why, steps, move=moved)


def _is_stopped(wanted: Wanted) -> bool:
    """Whether no change of code can be one of code alone."""
    try:
        recipe.read(wanted.text, wanted.target, wanted.build_args)
    except Refusal:
        return True
    return False


def _stages(text: str) -> list[Stage]:
    found = stages_of(text)
    if not found:
        raise Refusal("the Dockerfile has no FROM")
    for stage in found:
        for each in stage.instructions:
            if each.keyword not in recipe.KEYWORDS:
                raise Refusal(f"line {each.line} ({each.keyword}) is not known")
    return found


def _final(stages: Sequence[Stage], target: str | None) -> Stage:
    """Return the stage that is the image."""
    if target is None:
        return stages[-1]
    for number, stage in reversed(list(enumerate(stages))):
        if target.lower() in (str(number), stage.name if stage.named else ""):
            return stage
    raise Refusal(f"the Dockerfile has no stage {target}")


def _why(
    wanted: Wanted, contexts: Iterable[Context], known: Known
) -> tuple[str, CodeRecipe | None]:
    """Return why it is built as it is, and what the code is, where that alone is made anew."""
    if known.others:
        return ", ".join(known.others), None
    try:
        found = recipe.read(wanted.text, wanted.target, wanted.build_args)
        found.check_gone(known.gone)
    except Refusal as refusal:
        return refusal.reason, None
    if early := _seen(contexts, found.read_before) & set(known.paths):
        return f"{_shown(min(early))} counts before the code does", None
    return "the last instructions alone see what has changed", found


def _move(final: Stage, contexts: Iterable[Context], known: Known, *, stopped: bool) -> str | None:
    """Which lines to move so that a change of code is one of code alone; None where none is in the
    way. `stopped` says that no code comes last.
    """
    whole = final.instructions
    number = _code(whole, contexts, known, stopped=stopped)
    if number is None or not recipe.is_suffix(code := whole[number]):
        return None
    after = whole[number + 1 :]
    moved = [n for n, each in enumerate(after) if not recipe.is_suffix(each)]
    if not moved:
        return None
    kinds = RUN_WITH | {"ARG", "WORKDIR"}
    needed = [
        each
        for n, each in enumerate(after[: moved[-1]])
        if each.keyword in kinds and n not in moved
    ]
    settings = f", with what they need of {_lines(needed)}" if needed else ""
    return (
        f"move {_lines(after[n] for n in moved)} before line {code.line} ({code.text[:60]}){settings},"
        " and copy by name before them the files that they need"
    )


def _code(
    whole: Sequence[Instruction], contexts: Iterable[Context], known: Known, *, stopped: bool
) -> int | None:
    """Return the number of the instruction that copies the code: the first that copies a folder in
    which something has changed, or the whole source where more has than files.
    """
    copies = [
        (number, patterns)
        for number, each in enumerate(whole)
        if each.keyword in ("COPY", "ADD") and (patterns := recipe.reads([each]))
    ]
    if known.others:
        found = [number for number, patterns in copies if any(not p.strip("./") for p in patterns)]
    else:
        changed = set(known.paths)
        copies = [(n, patterns) for n, patterns in copies if _seen(contexts, patterns) & changed]
        found = [
            number
            for number, patterns in copies
            if any(context.has_folder(p) for context in contexts for p in patterns)
        ]
    if found and (stopped or not known.others):
        return found[0]
    return copies[-1][0] if copies and stopped else None


def _lines(of: Iterable[Instruction]) -> str:
    return ", ".join(f"line {each.line} ({each.keyword})" for each in of)


def _steps(wanted: Wanted, contexts: Sequence[Context], known: Known) -> tuple[PlannedStep, ...]:
    """All instructions that are run, and why each of them runs again."""
    found: list[PlannedStep] = []
    stages = used_stages(wanted.text, wanted.build_args)
    anew: dict[str, str] = {}
    differs = ", ".join(known.others) or None
    run = keyed(
        wanted.text,
        wanted.build_args,
        target=wanted.target,
        platform=wanted.platform,
        digests=wanted.digests,
    )
    for number, instructions in groupby(run, lambda each: each.stage):
        stage = stages[number]
        because = anew.get(stage.base.lower())
        for each in instructions:
            fresh = bool(differs) if known.keys is None else each.key not in known.keys
            because = because or (differs if fresh else None)
            if each.instruction.keyword == "FROM":
                continue
            _check_sources(each.instruction, contexts[1])
            because = because or _cause(each.instruction, contexts, known.paths, anew)
            found.append(PlannedStep(each.instruction.line, each.instruction.text, because))
            if because and not because.startswith(_AFTER):
                because = f"{_AFTER}{each.instruction.line}"
        if because:
            names = (stage.name.lower(), str(number))
            anew |= {name: f"stage {stage.name or number}" for name in names if name}
    return tuple(found)


def _check_sources(instruction: Instruction, context: Context) -> None:
    missing = next((each for each in recipe.reads([instruction]) if context.lacks(each)), None)
    if missing is not None:
        where = f"line {instruction.line} ({instruction.keyword})"
        raise Refusal(f"{where} names {missing}, which is not in the source, or ignored")


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
