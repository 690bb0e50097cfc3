"""All images that a Dockerfile may make a builder fetch: what a policy looks at.

A policy must not be passed by text that a builder reads in another way than we do. So more is found
here than a builder would use, never less: `FROM` also within a here-document, `from=` wherever it
stands in a `RUN`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from imagemill.dockerfile.base_images import arguments, resolved
from imagemill.dockerfile.syntax import instructions

_DIRECTIVES = re.compile(r"\s*(?:#|//|[{}\"']|$)")
_SYNTAX = re.compile(r"""[\s#/!{"']*syntax["']?\s*[:=]\s*["']?([^\s"'},]+)""", re.IGNORECASE)
_FROM = re.compile(r"(?:ONBUILD\s+)*FROM\s+(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_FLAGS = re.compile(
    r"(?:ONBUILD\s+)*(?:COPY|ADD|RUN)((?:\s+--(?:[^\s\"'\\]|\\.|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')+)*)",
    re.IGNORECASE,
)
_OTHER = re.compile(r"from=([^\s,]+)", re.IGNORECASE)
FRONTEND = "BUILDKIT_SYNTAX"
"""The build argument that names what is to read the Dockerfile."""


def images(dockerfile: str, build_args: Mapping[str, str]) -> set[str]:
    """Return the images, with the build's arguments in their places, without the names of stages.

    What has a variable of which no value is known stands there as it is written, with its `$`.
    """
    found = set(_frontends(dockerfile))
    if frontend := build_args.get(FRONTEND):
        found.add(frontend)
    stages: set[str] = set()
    for named, stage in _named(dockerfile, build_args):
        found |= {image for image in named if image.lower() not in stages}
        if stage is not None:
            stages |= {stage.lower(), str(len(stages) // 2)}
    return {image for image in found if image.lower() != "scratch"}


def _frontends(dockerfile: str) -> Iterator[str]:
    """Yield what is to read the Dockerfile, by a directive at its top: in a comment, or in JSON."""
    for line in dockerfile.removeprefix("\ufeff").split("\n"):
        if not _DIRECTIVES.match(line):
            return
        if directive := _SYNTAX.match(line):
            yield directive[1]


def _named(
    dockerfile: str, build_args: Mapping[str, str]
) -> Iterator[tuple[Iterable[str], str | None]]:
    """Yield what each instruction names, an image or a stage before it, and of `FROM` the name of
    its own stage. Only arguments before the first one have a meaning in it.
    """
    values: dict[str, str] = {}
    begun = False
    for number, instruction in enumerate(instructions(dockerfile, heredocs=False)):
        if instruction.keyword == "ARG" and not begun:
            for argument, default in arguments(instruction):
                value = build_args.get(argument, default)
                if value is not None:
                    values[argument] = resolved(value.strip("\"'"), values)
        elif match := _FROM.match(instruction.text):
            begun = True
            words, name = _words(match["rest"])
            yield (
                [resolved(word.strip("\"'"), values) for word in words],
                name or f"\0{number}",
            )
        elif flags := _FLAGS.match(instruction.text):
            yield _OTHER.findall(re.sub(r"[\"'\\]", "", flags[1])), None


def _words(rest: str) -> tuple[list[str], str]:
    """Return what `FROM` may build from, and the name of its stage. What stands in quotes may have
    blanks, so each word counts that begins no flag.
    """
    words = rest.split()
    name = ""
    if len(words) > 2 and words[-2].lower() == "as":
        *words, _, name = words
    return [word for word in words if not word.startswith("--")], name
