"""Reads from a Dockerfile which of its instructions are the code alone: those after the last that
runs, fetches or is not understood.

The instructions: https://docs.docker.com/reference/dockerfile/. What cannot be read with certainty
counts as seeing everything, so that it is never passed over.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from imagemill.builders.graft import Refusal
from imagemill.dockerfile.base_images import declare, resolved
from imagemill.dockerfile.syntax import Instruction, instructions
from imagemill.dockerfile.variables import Variables
from imagemill.encoding import json_value
from imagemill.patterns import Linear

METADATA = frozenset(
    {
        "ARG",
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
    }
)
"""Instructions that change the image's config alone."""

KEYWORDS = METADATA | {"ADD", "COPY", "ONBUILD", "RUN", "WORKDIR"}
"""All instructions of a stage."""

_FLAG = re.compile(r"--([a-z-]+)(?:=(\S*))?\s+")
_FROM = re.compile(r"(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?\s*", re.IGNORECASE)
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|git@")
_WORD = re.compile(r"[^\s\"'\\]+")
_SHOWN = re.compile(r"[ !#-\[\]-~]*")
"""What Go's `%q` does not escape, which BuildKit shows commands by."""
_UNREADABLE = re.compile(r"[$\\\"']|<<|[^\S \t\v\f\r]")
"""What we would have to expand, or split in another way: blanks are those of ASCII alone."""
_QUOTED = re.compile(r"[\\\"']")
_SYNTAX = re.compile(r"(?:docker\.io/)?docker/dockerfile(?:-upstream)?(?::[\w.-]+)?(?:@\S+)?")
_DIRECTIVE = Linear(r"#\s*(\w+)\s*=\s*(.*?)\s*$")


@dataclass(frozen=True)
class Copy:
    """A COPY, or an ADD of files that are there, of the suffix."""

    line: int
    keyword: str
    sources: tuple[str, ...]
    destination: str
    """As it is written; relative to the working folder, unless it begins with a slash."""
    owner: str | None = None
    mode: int | None = None


@dataclass(frozen=True)
class WorkingFolder:
    """A WORKDIR of the suffix, which makes the folder if it is not there."""

    line: int
    path: str
    """As it is written."""
    owner: str | None = None
    """The user that holds at this place, if one is named."""
    keyword: str = "WORKDIR"


@dataclass(frozen=True)
class Setting:
    """An instruction of the suffix that changes the config alone."""

    line: int
    keyword: str
    words: tuple[str, ...] | None = None
    """Of a CMD or ENTRYPOINT that names them plainly, on one line."""


Operation = Copy | WorkingFolder | Setting

Commands = tuple[tuple[str, tuple[str, ...]], ...]
"""Keyword and words of each CMD and ENTRYPOINT whose words are plain, in their order."""


@dataclass(frozen=True)
class CodeRecipe:
    """What a Dockerfile does, as far as it matters here."""

    operations: tuple[Operation, ...]
    """The suffix: the last instructions of the final stage."""
    read_before: tuple[str, ...]
    """Patterns of the context's files that any other instruction reads."""
    working_folders: tuple[str, ...]
    """What WORKDIR says, from the base image on, before the suffix."""
    base: str | None
    """The image that the final stage stands on, through other stages; None for `scratch`."""
    images: tuple[str, ...]
    """All images that any instruction takes something from."""
    bases: tuple[str, ...]
    """Those of them that stages stand on."""
    labels: tuple[str, ...] = ()
    """What LABEL says, without quotes."""

    def check_gone(self, labels: Iterable[str]) -> None:
        """Refuse where a label that is not given any more may be one of the Dockerfile's, too."""
        keys = [word.partition("=")[0] for text in self.labels for word in text.split()]
        for label in sorted(labels):
            if any("$" in key for key in keys) or any(label in text for text in self.labels):
                raise Refusal(
                    f"the label {label} is not given any more, and may be one of the Dockerfile, too"
                )

    def by(self, user: str) -> tuple[Operation, ...]:
        """Return the suffix where `user` holds as long as no other is named."""
        return tuple(
            replace(each, owner=each.owner or user or None)
            if isinstance(each, WorkingFolder)
            else each
            for each in self.operations
        )

    @property
    def commands(self) -> Commands:
        """Those of the suffix."""
        settings = (each for each in self.operations if isinstance(each, Setting))
        return tuple((each.keyword, each.words) for each in settings if each.words is not None)

    def shape(self, dockerfile: str) -> str:
        """Return the Dockerfile's text without what may change without a builder: the words of
        `commands`, and comments at the top.
        """
        lines = dockerfile.split("\n")
        for each in self.operations:
            if isinstance(each, Setting) and each.words is not None:
                # A command too, so that no other text becomes the same.
                lines[each.line - 1] = f'{each.keyword} [""]'
        first = next(n for n, line in enumerate(lines) if not line.startswith("#"))
        # A directive counts by its place among the comments.
        told = any(_DIRECTIVE.match(line) for line in lines[:first])
        return "\n".join(lines if told else lines[first:])


@dataclass
class GraftStage:
    """One stage, with its instructions."""

    line: int
    name: str
    base: str
    instructions: list[Instruction]


def read(
    dockerfile: str, target: str | None, build_args: Mapping[str, str] | None = None
) -> CodeRecipe:
    """Return what the Dockerfile says; `Refusal` if no code can be told apart in it."""
    _check_syntax(dockerfile)
    every = stages(dockerfile, build_args)
    for instruction in (each for stage in every for each in stage.instructions):
        _check(instruction)
    final = _target(every, target)
    whole = every[final].instructions
    suffix = _suffix(whole)
    before = [*whole[: len(whole) - len(suffix)]]
    others = [
        each for number, stage in enumerate(every) if number != final for each in stage.instructions
    ]
    chain = _chain(every, final)
    base = every[chain[0]].base
    operations = _operations(suffix, before, dockerfile.split("\n"))
    bases = tuple(dict.fromkeys(_bases(every)))
    return CodeRecipe(
        operations=operations,
        read_before=tuple(dict.fromkeys(reads([*others, *before]))),
        working_folders=tuple(
            _unquoted(each)
            for number in chain
            for each in (before if number == final else every[number].instructions)
            if each.keyword == "WORKDIR"
        ),
        base=None if base == "scratch" else base,
        images=tuple(dict.fromkeys([*bases, *_images(every)])),
        bases=bases,
        labels=tuple(
            _QUOTED.sub("", each.rest)
            for stage in every
            for each in stage.instructions
            if each.keyword == "LABEL"
        ),
    )


def check_frontend(name: str) -> None:
    """Refuse what may read the Dockerfile in another way than we do."""
    if not _SYNTAX.fullmatch(name):
        raise Refusal(f"the Dockerfile is read by {name}, whose rules we do not know")


def _check_syntax(dockerfile: str) -> None:
    """Look at all comments at the top: after which of them a directive counts is each version's."""
    lines = map(str.strip, dockerfile.removeprefix("\ufeff").split("\n"))
    for line in takewhile(lambda line: not line or line.startswith("#"), lines):
        directive = _DIRECTIVE.match(line)
        if directive and directive[1].lower() == "syntax":
            check_frontend(directive[2])
        if directive and directive[1].lower() == "escape":
            raise Refusal("the Dockerfile has an escape character of its own")


def _check(instruction: Instruction) -> None:
    """Refuse what may read what we do not see: mounts in quotes, in which there may be blanks, and
    what ADD fetches, which BuildKit looks at with each build.
    """
    flags, rest = _flags(instruction)
    where = f"line {instruction.line} ({instruction.keyword})"
    mounts = [value for name, value in flags if name == "mount"]
    if instruction.keyword == "RUN" and any(map(_QUOTED.search, mounts)):
        raise Refusal(f"{where} has a mount that is written in quotes")
    fetches = instruction.keyword == "ADD" and _REMOTE.search(rest)
    if fetches and not any(name == "checksum" for name, _ in flags):
        raise Refusal(f"{where} fetches something, which may be another by now")


def stages(dockerfile: str, build_args: Mapping[str, str] | None = None) -> list[GraftStage]:
    """All stages, with values in the place of variables that are known; `Refusal` where they cannot
    be read.
    """
    found: list[GraftStage] = []
    values: dict[str, str] = {}
    variables: dict[str, Variables] = {}
    for instruction in instructions(dockerfile):
        if instruction.keyword == "FROM":
            stage = _stage(instruction, values, {each.name for each in found})
            variables[stage.name] = Variables({**variables.get(stage.base, Variables()).values})
            found.append(stage)
        elif found:
            if instruction.keyword not in KEYWORDS:
                raise Refusal(f"line {instruction.line} ({instruction.keyword}) is not known")
            expanded = variables[found[-1].name].expand(instruction)
            found[-1].instructions.append(expanded)
        elif instruction.keyword == "ARG":
            declare(instruction, build_args or {}, values)
        else:
            raise Refusal(f"line {instruction.line} comes before the first FROM")
    if not found:
        raise Refusal("the Dockerfile has no FROM")
    return found


def _stage(instruction: Instruction, values: Mapping[str, str], names: set[str]) -> GraftStage:
    """Return the stage that a FROM begins: names of stages are taken as they are, and what has a
    variable without a value in it is not known.
    """
    match = _FROM.fullmatch(_flags(instruction)[1])
    if match is None:
        raise Refusal(f"line {instruction.line} (FROM) cannot be read")
    base = resolved(match["base"], values)
    base = base.lower() if base.lower() in names else base
    if "$" in base:
        raise Refusal(f"line {instruction.line} (FROM) names its base image by a variable")
    return GraftStage(instruction.line, (match["name"] or "").lower(), base, [])


def _target(stages: Sequence[GraftStage], target: str | None) -> int:
    if target is None:
        return len(stages) - 1
    for number, stage in reversed(list(enumerate(stages))):
        if target.lower() in (stage.name, str(number)):
            return number
    raise Refusal(f"there is no stage {target}")


def _chain(stages: Sequence[GraftStage], final: int) -> list[int]:
    """Return the stages that the final one stands on, the first of them first."""
    chain = [final]
    while True:
        base = stages[chain[0]].base
        below = [n for n in range(chain[0]) if stages[n].name == base and base]
        if not below:
            return chain
        chain.insert(0, below[-1])


def _bases(stages: Sequence[GraftStage]) -> Iterator[str]:
    """Yield the images that stages stand on; `Refusal` where one stands on another's `ONBUILD`."""
    on_build: dict[str, bool] = {}
    for stage in stages:
        if on_build.get(stage.base):
            raise Refusal(f"line {stage.line} (FROM) stands on a stage with ONBUILD instructions")
        if stage.base not in {*on_build, "scratch"}:
            yield stage.base
        on_build[stage.name] = any(each.keyword == "ONBUILD" for each in stage.instructions)


def _images(stages: Sequence[GraftStage]) -> Iterator[str]:
    """Yield images, not stages, that `COPY --from` or a mount names."""
    names = {"scratch"}
    for number, stage in enumerate(stages):
        for name in (each for found in stage.instructions for each in taken_from(found)):
            if "$" in name:
                raise Refusal("an image is named by a variable")
            if name.lower() not in names and not name.isdecimal():
                yield name
        names |= {stage.name, str(number)}


def taken_from(instruction: Instruction) -> list[str]:
    """Return the images and stages that an instruction takes files of."""
    flags = _flags(instruction)[0]
    if instruction.keyword in ("COPY", "ADD"):
        return [value for name, value in flags if name == "from"]
    if instruction.keyword == "RUN":
        mounts = (_mount(value) for name, value in flags if name == "mount")
        return [mount["from"] for mount in mounts if "from" in mount]
    return []


def _suffix(whole: Sequence[Instruction]) -> list[Instruction]:
    """Return the last instructions that are code or settings, from the first COPY or ADD of them
    on.
    """
    begin = len(whole)
    for number in range(len(whole) - 1, -1, -1):
        if not is_suffix(whole[number]):
            break
        if whole[number].keyword in ("COPY", "ADD"):
            begin = number
    if begin == len(whole):
        stopper = next((each for each in reversed(whole) if not is_suffix(each)), None)
        if stopper is None:
            raise Refusal("the final stage copies no files of the source")
        if stopper.keyword in ("COPY", "ADD") and not taken_from(stopper):
            _copy(stopper)  # says what is in the way
        raise Refusal(
            f"no COPY of the source comes after line {stopper.line} ({stopper.keyword}):"
            " what it does may depend on any file that is there before it"
        )
    return list(whole[begin:])


def is_suffix(instruction: Instruction) -> bool:
    """Whether it is code, or a setting."""
    if instruction.keyword in METADATA:
        return True
    if instruction.keyword == "WORKDIR":
        return not _UNREADABLE.search(_unquoted(instruction))
    if instruction.keyword not in ("COPY", "ADD"):
        return False
    try:
        _copy(instruction)
    except Refusal:
        return False
    return True


def _operations(
    suffix: Iterable[Instruction], before: Iterable[Instruction], lines: Sequence[str]
) -> tuple[Operation, ...]:
    user = next((_unquoted(each) for each in list(before)[::-1] if each.keyword == "USER"), None)
    found: list[Operation] = []
    for each in suffix:
        if each.keyword in ("COPY", "ADD"):
            found.append(_copy(each))
        elif each.keyword == "WORKDIR":
            found.append(WorkingFolder(each.line, _unquoted(each), user))
        else:
            user = _unquoted(each) if each.keyword == "USER" else user
            alone = lines[each.line - 1].strip() == each.text
            found.append(Setting(each.line, each.keyword, _command(each) if alone else None))
    return tuple(found)


def _command(instruction: Instruction) -> tuple[str, ...] | None:
    """Return the words of a CMD or ENTRYPOINT in JSON, where every builder shows them as they are."""
    if instruction.keyword not in ("CMD", "ENTRYPOINT"):
        return None
    try:
        words = json_value(instruction.rest)
    except ValueError:
        return None
    texts = words if isinstance(words, list) else []
    plain = texts and all(isinstance(word, str) and _SHOWN.fullmatch(word) for word in texts)
    return tuple(texts) if plain else None


def _copy(instruction: Instruction) -> Copy:
    flags, rest = _flags(instruction)
    where = f"line {instruction.line} ({instruction.keyword})"
    words = _words(rest)
    if words is None or len(words) < 2:
        raise Refusal(f"{where} cannot be read without running it")
    owner: str | None = None
    mode: int | None = None
    for name, value in flags:
        if name == "chown" and value:
            owner = value  # a variable in it is another name of somebody
        elif name == "chmod" and re.fullmatch(r"0?[0-7]{3}", value):  # some set no other bits
            mode = int(value, 8)
        else:
            raise Refusal(f"{where} has --{name}, which only the builder knows")
    *sources, destination = words
    if any(_REMOTE.match(source) for source in sources):
        raise Refusal(f"{where} fetches something")
    return Copy(instruction.line, instruction.keyword, tuple(sources), destination, owner, mode)


def reads(before: Iterable[Instruction]) -> list[str]:
    """Patterns of what the instructions see of the context; `.` where it may be anything."""
    found: list[str] = []
    for instruction in before:
        flags, rest = _flags(instruction)
        if instruction.keyword in ("COPY", "ADD"):
            if any(name == "from" for name, _ in flags):
                continue
            words = _words(rest)
            if words is None or any(name not in ("chown", "chmod", "link") for name, _ in flags):
                found.append(".")
            else:
                found += [word for word in words[:-1] if not _REMOTE.match(word)]
        elif instruction.keyword == "RUN":
            for value in (value for name, value in flags if name == "mount"):
                found += ["."] if _QUOTED.search(value) else _seen_through(_mount(value))
        elif instruction.keyword == "ONBUILD":
            continue  # it is for those who build on this image
    return found


def _seen_through(mount: dict[str, str]) -> list[str]:
    kind, source = mount.get("type", "bind"), mount.get("source", mount.get("src", "."))
    if "$" in kind or (kind.lower() == "bind" and "from" not in mount and "$" in source):
        return ["."]
    return [source] if kind.lower() == "bind" and "from" not in mount else []


def _mount(value: str) -> dict[str, str]:
    parts = (part.strip("\"'").partition("=") for part in value.split(","))
    return {name.strip().lower(): text.strip("\"'") for name, _, text in parts}


def _flags(instruction: Instruction) -> tuple[list[tuple[str, str]], str]:
    """Return the flags after the keyword, and the rest of the text."""
    text = instruction.rest
    found: list[tuple[str, str]] = []
    while match := _FLAG.match(text):
        found.append((match[1], match[2] or ""))
        text = text[match.end() :]
    return found, text


def _words(text: str) -> list[str] | None:
    """Return the words of a COPY, in either form; None where they cannot be known."""
    text = text.strip()
    if text.startswith("["):
        try:
            words = json_value(text)
        except ValueError:
            return None
        plain = isinstance(words, list) and all(isinstance(word, str) for word in words)
        return None if not plain or any(_UNREADABLE.search(word) for word in words) else words
    return None if _UNREADABLE.search(text) else text.split()


def _unquoted(instruction: Instruction) -> str:
    """Return the one argument that an instruction has."""
    return instruction.rest.strip("\"'")


def folder_after(folders: Iterable[str], start: str) -> str:
    """Return the working folder after these WORKDIRs; `Refusal` where one cannot be known."""
    for folder in folders:
        if _UNREADABLE.search(folder):
            raise Refusal("a WORKDIR is named by a variable")
        start = posixpath.normpath(posixpath.join("/", start, folder))
    return start
