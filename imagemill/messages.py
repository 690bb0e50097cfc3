"""The messages: what is asked for, what travels down the chain, and what comes back.

`Build` is frozen and changed by copy: a step returns a copy that knows one more fact, and does
nothing if its fact is already there. That one rule covers registry hits, builders that push by
themselves, retries and redelivery. Unknown fields are ignored, so that builds in flight survive a
rolling deploy of the workers.
"""

import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from imagemill.config.faults import shown
from imagemill.config.section import BUILT_LATE
from imagemill.errors import ImagemillError, UserError
from imagemill.grammar import BUILD_ID, CONFIG, SECRET_ID, TAG, Grammar
from imagemill.reference import ImageReference


class State(StrEnum):
    """Where a build is: written to the result of its root task while it runs."""

    QUEUED = "QUEUED"
    LOADING = "LOADING"
    HASHING = "HASHING"
    CHECKING = "CHECKING"
    UPLOADING = "UPLOADING"
    BUILDING = "BUILDING"
    PUSHING = "PUSHING"
    VERIFYING = "VERIFYING"
    REPORTING = "REPORTING"


Ended = Literal["SUCCEEDED", "FAILED", "CANCELLED"]
"""Where a build is that has a report."""


def state_named(name: str) -> str:
    """Return the state of a build by its name in any case; `UserError` if there is none."""
    states = (*State, *get_args(Ended))
    if name.upper() not in states:
        known = ", ".join(state.lower() for state in states)
        raise UserError(f"{shown(name)} is no state of a build", f"the states are {known}")
    return name.upper()


PLATFORMS = (
    "linux/amd64",
    "linux/amd64/v1",
    "linux/amd64/v2",
    "linux/amd64/v3",
    "linux/amd64/v4",
    "linux/arm64",
    "linux/arm64/v8",
    "linux/386",
    "linux/arm",
    "linux/arm/v5",
    "linux/arm/v6",
    "linux/arm/v7",
    "linux/loong64",
    "linux/mips64",
    "linux/mips64le",
    "linux/ppc64le",
    "linux/riscv64",
    "linux/s390x",
    "windows/amd64",
    "windows/arm64",
)
"""What docker builds for (https://github.com/moby/buildkit, util/archutil) and runs on, as docker
writes it.
"""

_PLATFORMS_PATTERN = "^({0})(,({0}))*$".format("|".join(PLATFORMS))

_OTHER_NAMES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "i386": "386",
    "i686": "386",
    "aarch64": "arm64",
    "armhf": "arm/v7",
    "armel": "arm/v6",
}
"""What architectures are called elsewhere (`uname -m`, Debian)."""


_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")
_MAX_NAME = 255
"""Bytes of the name of a file: Linux' NAME_MAX."""


def _refused(message: str, hint: str = "") -> PydanticCustomError:
    """Return what a validator raises; `BuildRequest.parse` reads both."""
    return PydanticCustomError("build_request", "{message}", {"message": message, "hint": hint})


def _checked(grammar: Grammar) -> AfterValidator:
    def check(value: str) -> str:
        if not grammar.fits(value):
            raise _refused(f"{shown(value)} is not {grammar.article}", grammar.form)
        return value

    return AfterValidator(check)


def _text(most: int, *, line: bool) -> AfterValidator:
    """Refuse what no operating system takes as a name or a variable, or, for a `line`, more lines
    than one.
    """

    def check(value: str) -> str:
        if len(value) > most:
            raise _refused(f"found {len(value):,} characters, expected {most:,} at most")
        if _NO_TEXT.search(value) or (line and not value.isprintable()):
            raise _refused(
                "found control characters, or what is no Unicode, expected text",
                "write it without them",
            )
        return value

    return AfterValidator(check)


def _dockerfile_path(value: str) -> str:
    if any(len(os.fsencode(name)) > _MAX_NAME for name in value.split("/")):
        raise _refused(f"found a name of more than {_MAX_NAME} bytes, expected the path of a file")
    return value


def _platforms(value: str) -> str:
    """Return platforms with commas between them, each once and in one order."""
    return ",".join(sorted({_platform(name.strip()) for name in value.split(",")}))


def _platform(value: str) -> str:
    if value in PLATFORMS:
        return value
    machine = value.lower().partition("/")[2] or value.lower()
    machines = [
        platform.removeprefix("linux/") for platform in PLATFORMS if platform.startswith("linux/")
    ]
    near = get_close_matches(_OTHER_NAMES.get(machine, machine), machines, n=1)
    raise _refused(
        f"{shown(value)} is not a platform that docker builds for",
        f"did you mean linux/{near[0]}?" if near else f"the platforms are {', '.join(PLATFORMS)}",
    )


def _destination(value: str) -> str:
    try:
        ImageReference.parse_destination(value)
    except UserError as error:
        raise _refused(error.message, error.hint) from None
    return value


def _cache_image(value: str) -> str:
    try:
        reference = ImageReference.parse(value)
    except UserError as error:
        raise _refused(error.message, error.hint) from None
    if reference.digest:
        raise _refused(f"{shown(value)} has a digest, expected a tag", "write REPOSITORY:TAG")
    return str(reference if reference.tag else reference.with_tag("latest"))


def _path(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


Platform = Annotated[
    str,
    AfterValidator(_platforms),
    WithJsonSchema({"type": "string", "pattern": _PLATFORMS_PATTERN}, mode="validation"),
]
Destination = Annotated[str, AfterValidator(_destination)]
CacheImage = Annotated[str, AfterValidator(_cache_image)]
Tag = Annotated[str, _checked(TAG)]
SecretId = Annotated[str, _checked(SECRET_ID)]
ConfigName = Annotated[str, _checked(CONFIG)]
BuildId = Annotated[str, _checked(BUILD_ID)]
Line = Annotated[str, _text(8192, line=True)]
Value = Annotated[str, _text(65536, line=False)]
"""What may have lines, as the value of a build argument has."""
DockerfilePath = Annotated[
    str, _text(4096, line=True), AfterValidator(_dockerfile_path), Field(min_length=1)
]


MOST_BYTES = 1 << 20
"""Bytes of a request as JSON; a message with a longer one is refused."""

MOST_DEPTH = 64
"""How deep the JSON of a message may be nested."""


class Message(BaseModel):
    """What all messages share: frozen, tolerant of fields that they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=BUILT_LATE)

    def dump(self) -> dict[str, Any]:
        """As JSON-able data, without fields that are not set."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def load(cls, data: object) -> Self:
        """Read what `dump` wrote, by whatever version."""
        return cls.model_validate(data, extra="ignore")


class BuildRequest(Message):
    """What to build, from what, and how it is to be named."""

    model_config = ConfigDict(
        json_schema_extra={
            "$comment": f"A message is refused that is longer than {MOST_BYTES} bytes as JSON, or"
            f" nested deeper than {MOST_DEPTH}."
        }
    )

    source: Annotated[Line, BeforeValidator(_path)] = Field(
        min_length=1,
        description="a folder, an archive (.tar, .tar.gz, .tar.zst, .zip) here, at https://, s3://, gs:// or in Azure"
        " Blob, git+https://HOST/PATH@REF or docker-image://REFERENCE",
    )
    dockerfile: DockerfilePath | None = Field(
        default=None,
        description="path of the Dockerfile within the source; default: Dockerfile, or a generated one",
    )
    dockerfile_text: Value | None = Field(
        default=None, description="the Dockerfile itself, where the source has none that is meant"
    )
    python: Line | None = Field(
        default=None,
        min_length=1,
        description="without a Dockerfile: version of Python, such as 3.12; default: the project's",
    )
    base_image: Line | None = Field(
        default=None, min_length=1, description="without a Dockerfile: the base image"
    )
    accelerator: Line | None = Field(
        default=None,
        min_length=1,
        description="without a Dockerfile: cuda, cuda12.4 …, or a base image for it",
    )
    entrypoint: tuple[Value, ...] | None = Field(
        default=None,
        min_length=1,
        description="without a Dockerfile: what the image runs, word by word; default: found",
    )
    system_packages: tuple[Line, ...] = Field(
        default=(), description="without a Dockerfile: packages that apt installs, such as libgl1"
    )
    target: Line | None = Field(
        default=None, description="stage to build, of a Dockerfile with several"
    )
    build_args: dict[Line, Value] = Field(
        default={}, description="values of the Dockerfile's ARGs; not for secrets"
    )
    labels: dict[Line, Value] = Field(default={}, description="labels of the image")
    platform: Platform | None = Field(
        default=None,
        description="for example linux/amd64; several, with commas between them, give an image for all of"
        " them; default: the config's, else the builder's own",
    )
    secrets: tuple[SecretId, ...] = Field(
        default=(), description="ids of build secrets; their values are files on the worker"
    )
    ssh: tuple[SecretId, ...] = Field(
        default=(),
        description="ids of SSH keys for RUN --mount=type=ssh, such as default; the keys are files on the worker",
    )
    config: ConfigName | None = Field(
        default=None, description="name of a launch config in the workers' config folder"
    )
    destination: Destination | None = Field(
        default=None, description="repository to push to, without a tag; default: the config's"
    )
    tags: tuple[Tag, ...] = Field(default=(), description="tags to add beside the source hash")
    force: bool = Field(default=False, description="build even if the image exists")
    no_cache: bool = Field(
        default=False, description="build, and take nothing from the builder's cache of layers"
    )
    pull: bool = Field(
        default=False, description="build, and have the builder ask for base images anew"
    )
    cache_from: tuple[CacheImage, ...] = Field(
        default=(),
        description="images in registries whose layers the docker builder may take, REGISTRY/REPOSITORY:TAG",
    )
    cache_to: CacheImage | None = Field(
        default=None,
        description="where the docker builder puts the layers for later builds, REGISTRY/REPOSITORY:TAG",
    )
    graft: bool = Field(
        default=True,
        description="where code alone has changed, make its layers anew on the earlier image, without a builder",
    )
    timeout: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="seconds that the build may take once it has started",
    )
    revision: Line | None = Field(
        default=None, description="revision of the source, for the image's label"
    )
    source_url: Line | None = Field(
        default=None, description="where the source is published, for the image's label"
    )

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platforms that are asked for, each by itself; none: the config's or the builder's."""
        return tuple(self.platform.split(",")) if self.platform else ()

    @property
    def anew(self) -> bool:
        """Whether to build even if the image exists."""
        return self.force or self.no_cache or self.pull

    def __repr__(self) -> str:
        """Without build arguments and labels, which people put secrets into."""
        return f"BuildRequest(source={self.source!r}, dockerfile={self.dockerfile!r}, config={self.config!r})"

    __str__ = __repr__

    @classmethod
    def parse(cls, data: object, called: Mapping[str, str] | None = None) -> Self:
        """Read a request from outside; `UserError` names each field that is wrong.

        `called` has the names by which whoever gives the request knows its fields, where those are
        others.
        """
        try:
            return cls.model_validate(data, extra="forbid")
        except ValidationError as error:
            faults = [
                _explained(details, called or {}) for details in error.errors(include_url=False)
            ]
        hints = dict.fromkeys(hint for _, hint in faults if hint)
        message = f"The build request is not valid: {'; '.join(message for message, _ in faults)}"
        raise UserError(message, "; ".join(hints))


_EXPECTED = {
    "missing": "a value",
    "string": "text",
    "float": "a number",
    "finite": "a finite number",
    "greater": "more than 0",
    "bool": "true or false",
    "tuple": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}
"""The first word of pydantic's name for an error → what was expected."""


def _explained(details: ErrorDetails, called: Mapping[str, str]) -> tuple[str, str]:
    """Pydantic's error as message and hint."""
    kind = "missing" if details["type"] == "string_too_short" else details["type"]
    field, *within = map(str, details["loc"] or ("request",))
    name = called.get(field, field)
    place = ".".join((name, *(key for key in within if not key.isdigit() and key != "[key]")))
    if kind == "build_request":
        return f"{place}: {details['ctx']['message']}", details["ctx"]["hint"]
    if kind == "extra_forbidden":
        near = get_close_matches(field, BuildRequest.model_fields, n=1)
        known = f"the fields are {', '.join(BuildRequest.model_fields)}"
        return f"{place}: there is no such field", f"did you mean {near[0]}?" if near else known
    found = "nothing" if kind == "missing" else _found(details["input"], secret=bool(within))
    meant = (
        BuildRequest.model_fields[field].description if field in BuildRequest.model_fields else None
    )
    return (
        f"{place}: found {found}, expected {_EXPECTED.get(kind.partition('_')[0], details['msg'])}",
        f"{name}: {meant}" if meant else "",
    )


def _found(value: object, *, secret: bool) -> str:
    """Return a value as messages show it; of a `secret` number only that it is one, since people
    put secrets into mappings.
    """
    if (
        secret
        or isinstance(value, bool)
        or not (isinstance(value, float | int) and abs(value) < 1e9)
    ):
        return shown(value)
    return f"{value:g}"


class StepTime(Message):
    """When a state began and ended, in seconds since 1970 (UTC)."""

    state: State
    started: float
    ended: float | None = None


class Failure(Message):
    """Why a build failed, in words for whoever can act on it."""

    kind: str
    message: str
    hint: str = ""
    field: str = Field(
        default="",
        description="the field of the request that the hint is about, if it is about one",
    )
    state: State | None = None
    log: tuple[str, ...] = Field(default=(), description="the last lines of the build's log")

    @classmethod
    def of(
        cls, error: ImagemillError, state: State | None = None, log: tuple[str, ...] = ()
    ) -> Self:
        return cls(
            kind=error.kind,
            message=error.message,
            hint=error.hint,
            field=error.field,
            state=state,
            log=log,
        )

    def exception(self) -> ImagemillError:
        """Return the error as it was raised."""
        known = {error.__name__: error for error in _all_errors(ImagemillError)}
        return known.get(self.kind, ImagemillError)(self.message, self.hint).about(self.field)


def _all_errors(error: type[ImagemillError]) -> Iterator[type[ImagemillError]]:
    yield error
    for narrower in error.__subclasses__():
        if narrower is not BuildFailed:
            yield from _all_errors(narrower)


class ChosenConfig(Message):
    """The launch config that holds for a build. The request names it; each worker reads it from its
    own files.
    """

    digest: str = Field(description="of what it says, as the worker read it that loaded it")
    builder: Literal["docker", "kaniko", "noop"]


class Build(Message):
    """The message that goes down the chain: the request and all facts found so far."""

    id: BuildId
    request: BuildRequest
    started: float
    traceparent: str | None = Field(
        None, description="the span of the request's being taken, as W3C Trace Context writes it"
    )
    tenant: str | None = Field(None, description="who has signed the request, if anybody has")
    in_line: bool = Field(False, description="whether it counts among the builds of its tenant")
    deadline: float | None = None
    config: ChosenConfig | None = None
    changes: int = Field(
        default=0, description="how often it began anew, since the launch config was another one"
    )
    source: str | None = Field(
        default=None, description="the source, named so that it cannot become another one"
    )
    source_hash: str | None = None
    bases: dict[str, str] = Field(
        default={}, description="base image → its digest when it was hashed"
    )
    image: str | None = Field(default=None, description="repository:tag that is being made")
    platforms: dict[str, str] = Field(
        default={}, description="where there are several: platform → the source hash of its image"
    )
    part_of: str | None = Field(
        default=None, description="id of the build for several platforms that this one is a part of"
    )
    existing_digest: str | None = None
    context: str | None = Field(
        default=None, description="name of the packed context in the context store"
    )
    locked: bool = Field(
        default=False, description="whether the build has taken the lock on its image"
    )
    waited: bool = Field(
        default=False, description="whether it has waited for another build of the same image"
    )
    graft_key: str | None = Field(
        default=None,
        description="what the image will be known by to builds that change its code alone",
    )
    commands: tuple[tuple[str, tuple[str, ...]], ...] = Field(
        default=(), description="its CMD and ENTRYPOINT that may be others in those images"
    )
    waited_for: tuple[str, ...] = Field(
        default=(), description="builds that were to make what comes before its code, too"
    )
    grafted: bool = Field(default=False, description="whether the image was made without a builder")
    not_grafted: str | None = Field(default=None, description="why it was not")
    uploads: int = Field(
        default=0, description="how often the context has been brought to the store"
    )
    digest: str | None = None
    warnings: tuple[str, ...] = ()
    failure: Failure | None = None

    def knowing(self, **facts: Any) -> Self:
        """Return a copy that knows more."""
        return self.model_copy(update=facts)

    def __repr__(self) -> str:
        return f"Build(id={self.id!r}, request={self.request!r})"

    __str__ = __repr__


class BuildReport(Message):
    """How a build ended: the result of `imagemill.build_image`."""

    id: str
    status: Literal["succeeded", "failed", "cancelled"]
    image: str | None = Field(default=None, description="the image, pinned: repository@sha256:…")
    digest: str | None = None
    tags: tuple[str, ...] = Field(default=(), description="the image by its tags: repository:tag")
    source_hash: str | None = None
    built: bool = Field(default=False, description="false where the image was there already")
    builder: str | None = None
    grafted: bool = Field(
        default=False, description="true where layers of code were made anew on an earlier image"
    )
    not_grafted: str | None = Field(default=None, description="why the builder has built instead")
    steps: tuple[StepTime, ...] = ()
    seconds: float = Field(default=0, description="from the first step's start to the report")
    warnings: tuple[str, ...] = ()
    error: Failure | None = None

    def raise_for_status(self) -> Self:
        """Return the report itself if the build succeeded, else its error as an exception."""
        if self.error is not None:
            raise BuildFailed(self)
        return self


class BuildStatus(Message):
    """Where a build is now."""

    id: str
    state: State | Ended
    steps: tuple[StepTime, ...] = ()
    cancelling: bool = False
    report: BuildReport | None = None

    @classmethod
    def ended(cls, report: BuildReport) -> Self:
        """Return the status of a build with this report."""
        names: dict[str, Ended] = {
            "succeeded": "SUCCEEDED",
            "failed": "FAILED",
            "cancelled": "CANCELLED",
        }
        return cls(id=report.id, state=names[report.status], steps=report.steps, report=report)


class BuildSummary(Message):
    """A build in a list of builds."""

    id: str
    begun: float = Field(description="when a worker took its request, in seconds since 1970")
    state: State | Ended
    source: str
    destination: str | None = None
    image: str | None = None
    seconds: float | None = Field(default=None, description="how long it took, once it has ended")
    error: str | None = None


class UploadPlan(Message):
    """What a service says to whoever is about to upload a source; see `imagemill.context.uploads`."""

    builder: dict[str, JsonValue]
    """The config's section, without what may hold secrets."""
    region: str | None = None

    @property
    def store_uri(self) -> str | None:
        """The context store of the workers; None if they have none that others reach as well."""
        uri = self.builder.get("build_context_store")
        return uri if isinstance(uri, str) and not uri.startswith("file:") else None


class BuildFailed(ImagemillError):
    """A build that was waited for has failed; `report` says all that is known."""

    def __init__(self, report: BuildReport) -> None:
        error = report.error or Failure(kind="ImagemillError", message="The build failed")
        super().__init__(error.message, error.hint)
        self.report = report
