"""All images that a Dockerfile may make a builder fetch: what a policy looks at.

A policy must not be passed by text that a builder reads in another way than we do. So more is found
here than a builder would use, never less: `FROM` also within a here-document, `from=` wherever it
stands in a `RUN`.
"""

import re
from collections.abc import Iterator, Mapping

from imagemill.dockerfile.base_images import resolved
from imagemill.dockerfile.syntax import instructions

_DIRECTIVES = re.compile(r"\s*(?:#|//|[{}\"']|$)")
_SYNTAX = re.compile(r"""[\s#/!{"']*syntax["']?\s*[:=]\s*["']?([^\s"'},]+)""", re.IGNORECASE)
_FROM = re.compile(
    r"(?:ONBUILD\s+)*FROM\s+(?:--\S+\s+)*(?P<image>\S+)(?:\s+AS\s+(?P<name>\S+))?", re.IGNORECASE
)
_FLAGS = re.compile(
    r"(?:ONBUILD\s+)*(?:COPY|ADD|RUN)((?:\s+--(?:[^\s\"'\\]|\\.|\"(?:[^\"\\]|\\.)*\"|'[^']*')+)*)",
    re.IGNORECASE,
)
_OTHER = re.compile(r"from=([^\s,]+)", re.IGNORECASE)
_ARGUMENT = re.compile(r"([A-Za-z_]\w*)(?:=(\"[^\"]*\"|'[^']*'|\S*))?")
_FRONTEND = "BUILDKIT_SYNTAX"


def images(dockerfile: str, build_args: Mapping[str, str]) -> set[str]:
    """Return the images, with the build's arguments in their places, without the names of stages.

    What has a variable of which no value is known stands there as it is written, with its `$`.
    """
    found = set(_frontends(dockerfile))
    if frontend := build_args.get(_FRONTEND):
        found.add(frontend)
    stages: set[str] = set()
    for image, name in _begun(dockerfile, build_args):
        if image.lower() not in stages:
            found.add(image)
        stages |= {name.lower(), str(len(stages))}
    found |= {image for image in _copied(dockerfile) if image.lower() not in stages}
    return {image for image in found if image.lower() != "scratch"}


def _frontends(dockerfile: str) -> Iterator[str]:
    """Yield what is to read the Dockerfile, by a directive at its top: in a comment, or in JSON."""
    for line in dockerfile.removeprefix("\ufeff").split("\n"):
        if not _DIRECTIVES.match(line):
            return
        if directive := _SYNTAX.match(line):
            yield directive[1]


def _begun(dockerfile: str, build_args: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Image and name of each stage. Only arguments before the first one have a meaning in them."""
    values: dict[str, str] = {}
    begun = False
    for instruction in instructions(dockerfile, heredocs=False):
        if instruction.keyword == "ARG" and not begun:
            for name, default in _ARGUMENT.findall(instruction.text.partition(" ")[2]):
                if value := build_args.get(name, default.strip("\"'")):
                    values[name] = resolved(value, values)
        elif match := _FROM.match(instruction.text):
            begun = True
            yield resolved(match["image"].strip("\"'"), values), match["name"] or ""


def _copied(dockerfile: str) -> Iterator[str]:
    """Yield what is copied from or mounted, by the flags of an instruction without their quotes."""
    for instruction in instructions(dockerfile, heredocs=False):
        if flags := _FLAGS.match(instruction.text):
            yield from _OTHER.findall(re.sub(r"[\"'\\]", "", flags[1]))
