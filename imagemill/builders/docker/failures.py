"""Why a `docker build` failed, in words for whoever can mend it, with the line of the Dockerfile
where there is one.

The texts are those of BuildKit 0.8 (in Docker 20.10) to 0.26, of its Dockerfile frontend, and of
the classic builder.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from imagemill.builders.engine_failures import (
    NO_SUCH_IMAGE,
    Doing,
    engine_failure,
    engine_lost,
    registry_failure,
)
from imagemill.dockerfile import syntax as dockerfile
from imagemill.errors import ImagemillError, OperatorError, UserError
from imagemill.patterns import Linear
from imagemill.place import machine
from imagemill.reference import ImageReference
from imagemill.text import shortened

_PREFIX = re.compile(
    r"(?:ERROR|failed to build|failed to solve(?: with frontend [\w.]+)?|failed to create LLB definition"
    r"|Error response from daemon|rpc error: code = (?!Unavailable)\w+ desc =|dockerfile\.v0):? "
)
_SOLVING = re.compile(r"failed to (?:solve|create LLB)")
_STEP = Linear(
    r"\[(?:\S+/\S+ )?(?:(?P<stage>\S+) )?(?P<position>\d+)/(?P<total>\d+)\] (?P<text>.*)",
    dot_all=True,
)
_CLASSIC_STEP = re.compile(r"Step (?P<number>\d+)/\d+ : (?P<text>.*)")

_SYNTAX = re.compile(
    r"(?:dockerfile|file) parse error (?:on )?line (?P<line>\d+): (?P<fault>.*)", re.IGNORECASE
)
_TARGET = Linear(r"target stage .* could not be found|failed to reach build target")
_SECRET = re.compile(r"secret \"?(?P<id>[^\s\":]+)\"?(?: not found)?: not found")
_EXIT = re.compile(r"(?:exit code|non-zero code): (?P<code>\d+)$")
_OUT_OF_MEMORY = re.compile(r"cannot allocate memory$")
_EXECUTOR = Linear(
    r"(?:executor failed running \[.*\]|process \".*\" did not complete successfully): (?P<fault>.*)"
)
_MISSING = re.compile(
    r"\"/?(?P<checked>[^\"]*)\"(?:: not found| not found)|l?stat (?:\S*/buildkit-mount\d+/)?(?P<walked>[^\s:]+): "
)
_ARGUMENT = re.compile(
    r"invalid argument \"|platform specifier|unknown operating system|invalid platform|invalid label"
)

_BASE = Linear(
    r"(?:\[internal\] load metadata for|resolve image config for(?: docker-image://)?|(?:\[[^]]*\] |Step \S+ : )?FROM)"
    r" ?(?P<image>\S+)(?: AS \S+)?$",
    ignore_case=True,
)
_BASE_IN_ERROR = re.compile(
    r"(?:failed to resolve source metadata for|pull access denied for|manifest for) (?P<image>[^\s,]+?)"
    r"(?:[:,] |,| not found)"
)
_FETCH = re.compile(
    r"failed to do request|(?:Get|Head) \"https?://|dial tcp|invalid response status|git fetch"
)
_FRONTEND = re.compile(r"resolve image config for")
_NO_SPACE = re.compile("no space left on device", re.IGNORECASE)
_SEE_LOG = "the last lines of the log are the instruction's own"

_OWN = "; one that only the engine has is found if builder.base-digests is false"
"""Of a base image. Where others are asked of their registries, BuildKit asks for all of them."""


@dataclass(frozen=True)
class Evidence:
    """What is known of a failed build."""

    text: str
    """What was wrong, without the layers that hand it on."""
    step: str
    """The step that failed, as the builder shows it; empty if it was in none."""
    instruction: dockerfile.Instruction | None
    """The step's instruction, if it stands in the Dockerfile."""
    solving: bool
    """Whether it was BuildKit that refused, and not the command line or the engine."""
    output: Sequence[str]
    dockerfile: str
    target: str | None
    host: str

    @property
    def place(self) -> str:
        """Where it failed, to begin a sentence with."""
        if self.instruction:
            return f"Line {self.instruction.line} of the Dockerfile ({shortened(self.instruction.text, 200)})"
        if match := _STEP.match(self.step):
            return f"An instruction of the base image (ONBUILD {match['text'].split()[0]})"
        return shortened(self.step, 200) or "The build"


def explain(evidence: Evidence) -> ImagemillError:
    """Return the error for a failed build.

    What no rule knows is a `UserError` if it happened in a step or was refused by BuildKit, which
    fails only at what a Dockerfile asks of it; what remains comes from the command line or the
    engine, and is an `OperatorError`. Neither is retried: a build that fails for an unknown reason
    would most likely fail again, and takes long.
    """
    for rule in _RULES:
        if error := rule(evidence):
            return error
    if evidence.step or evidence.solving:
        return UserError(
            f"{evidence.place} failed: {shortened(evidence.text)}", "see the last lines of the log"
        )
    return OperatorError(
        f"docker build failed: {shortened(evidence.text)}", "see the last lines of the log"
    )


def locate(text: str, step: str, source_line: int | None = None) -> dockerfile.Instruction | None:
    """Return the instruction of the Dockerfile `text` that a builder means by `step` or by the line
    that it names.
    """
    if source_line is not None:
        return next(
            (each for each in dockerfile.instructions(text) if each.line == source_line), None
        )
    if match := _STEP.match(step):
        place = dockerfile.Location(
            match["stage"] or "", int(match["position"]), int(match["total"])
        )
        return dockerfile.find(text, place, match["text"])
    if match := _CLASSIC_STEP.match(step):  # counts all instructions of the file
        return dict(enumerate(dockerfile.instructions(text), 1)).get(int(match["number"]))
    return None


def is_solving(error: str) -> bool:
    """Whether it is BuildKit's solver that failed, by the last word of the CLI."""
    return _SOLVING.search(error) is not None


def bare(text: str) -> str:
    """Return the error itself, without what the layers that handed it on have put before it."""
    while match := _PREFIX.match(text):
        text = text[match.end() :]
    return text


def _syntax(evidence: Evidence) -> ImagemillError | None:
    match = _SYNTAX.search(evidence.text)
    if not match:
        return None
    hint = "mend that line"
    if "<<" in evidence.dockerfile:
        hint += "; here-documents need a newer Docker engine, or `# syntax=docker/dockerfile:1` as the first line"
    return UserError(
        f"Line {match['line']} of the Dockerfile cannot be read: {match['fault']}", hint
    )


def _unknown_target(evidence: Evidence) -> ImagemillError | None:
    if not (evidence.target and _TARGET.search(evidence.text)):
        return None
    names = [stage.name for stage in dockerfile.stages(evidence.dockerfile) if stage.named]
    near = get_close_matches(evidence.target.lower(), names, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    hint = (
        f"its stages are: {', '.join(names)}"
        if names
        else "none of its stages has a name (FROM … AS NAME)"
    )
    return UserError(f"The Dockerfile has no stage {evidence.target!r}", guess + hint)


def _missing_secret(evidence: Evidence) -> ImagemillError | None:
    match = _SECRET.match(evidence.text)
    if not match:
        return None
    return UserError(
        f"{evidence.place} needs the build secret {match['id']!r}, which was not asked for",
        f"name {match['id']!r} among the build's secrets; whoever runs Imagemill keeps its value",
    ).about("secrets")


def _command_failed(evidence: Evidence) -> ImagemillError | None:
    code = _exit_code(evidence.text)
    if code is None:
        refused = _EXECUTOR.match(evidence.text)
        return (
            UserError(f"{evidence.place} could not be run: {refused['fault']}", "mend it")
            if refused
            else None
        )
    if any(_NO_SPACE.search(line) for line in evidence.output):
        return engine_failure("no space left on device", evidence.host)
    told = f"{evidence.place} failed with exit code {code}"
    if code == 137:
        return UserError(
            f"{told}: it was killed, most likely because the memory ran out",
            "let it need less memory (fewer parallel jobs), or give the Docker engine's machine more",
        )
    if any("exec format error" in line for line in evidence.output):
        return UserError(
            told,
            "the image is for another platform: have an emulator installed on the engine's machine (binfmt)",
        )
    return UserError(told, "a program was not found: " + _SEE_LOG if code == 127 else _SEE_LOG)


def _exit_code(text: str) -> int | None:
    if _OUT_OF_MEMORY.search(text) and _EXECUTOR.match(text):
        return 137
    match = _EXIT.search(text)
    return int(match["code"]) if match else None


def _missing_file(evidence: Evidence) -> ImagemillError | None:
    match = _MISSING.search(evidence.text)
    keyword = evidence.instruction.keyword if evidence.instruction else ""
    if not match or not (keyword in ("COPY", "ADD") or _STEP.match(evidence.step)):
        return None
    path = match["checked"] or match["walked"]
    if "--from=" in evidence.step:
        return UserError(
            f"{evidence.place}: there is no {path!r} where it copies from", "check path and stage"
        )
    return UserError(
        f"{evidence.place}: there is no {path!r} in the build context",
        "check the path, which is relative to the source's top folder, and that .dockerignore does not exclude it",
    )


def _base_image(evidence: Evidence) -> ImagemillError | None:
    match = _BASE.match(evidence.step) or _BASE_IN_ERROR.search(evidence.text)
    if not match:
        return None
    what = "Dockerfile frontend" if _FRONTEND.search(evidence.step) else "base image"
    if "may require" in evidence.text:
        return UserError(
            f"The {what} {match['image']} does not exist, or {machine()} may not pull it",
            f"check its name; if it is private, {machine()} needs a login of its registry{_OWN}",
        )
    if NO_SUCH_IMAGE.search(evidence.text):
        return UserError(
            f"The {what} {match['image']} does not exist",
            f"check its name, tag and platform{_OWN}",
        )
    return registry_failure(
        evidence.text, Doing(f"Pulling the {what} {match['image']}", _registry_of(match["image"]))
    )


def _registry_of(image: str) -> str:
    try:
        return ImageReference.parse(image).registry
    except UserError:  # the builder took it, so it is a name of a kind that we do not know
        return image


def _arguments(evidence: Evidence) -> ImagemillError | None:
    if not _ARGUMENT.search(evidence.text):
        return None
    return UserError(
        f"docker build does not take the request: {shortened(evidence.text)}", "mend the request"
    )


def _engine(evidence: Evidence) -> ImagemillError | None:
    return engine_failure(evidence.text, evidence.host) or engine_lost(evidence.text, evidence.host)


def _remote(evidence: Evidence) -> ImagemillError | None:
    """Something else that is fetched, for example by `ADD https://…`."""
    if not _FETCH.search(evidence.text):
        return None
    action = evidence.place if evidence.instruction else f"Fetching {evidence.place}"
    return registry_failure(evidence.text, Doing(action, "the server"))


_RULES: tuple[Callable[[Evidence], ImagemillError | None], ...] = (
    _syntax,
    _unknown_target,
    _missing_secret,
    _command_failed,
    _engine,
    _base_image,
    _missing_file,
    _arguments,
    _remote,
)
