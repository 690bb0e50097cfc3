"""The messages: what is asked for, what travels down the chain, and what comes back.

`Build` is frozen and changed by copy: a step returns a copy that knows one more fact, and does nothing if its fact
is already there. That one rule covers registry hits, builders that push by themselves, retries and redelivery.
Unknown fields are ignored, so that builds in flight survive a rolling deploy of the workers.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from imagemill.config import LaunchConfig
from imagemill.errors import ImagemillError, UserError
from imagemill.reference import is_tag


class State(StrEnum):
    """Where a build is: written to the result of its root task while it runs."""

    QUEUED = "QUEUED"
    LOADING = "LOADING"
    HASHING = "HASHING"
    CHECKING = "CHECKING"
    UPLOADING = "UPLOADING"
    BUILDING = "BUILDING"
    PUSHING = "PUSHING"
    REPORTING = "REPORTING"


_SECRET_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


def _checked(fits: Callable[[str], object], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not fits(value):
            raise ValueError(f"{value!r} is not {what}")
        return value

    return AfterValidator(check)


class Message(BaseModel):
    """What all messages share: frozen, tolerant of fields that they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def dump(self) -> dict[str, Any]:
        """As JSON-able data, without fields that are not set."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def load(cls, data: object) -> Self:
        """Read what `dump` wrote, by whatever version."""
        return cls.model_validate(data, extra="ignore")


class BuildRequest(Message):
    """What to build, from what, and how it is to be named."""

    source: str = Field(
        min_length=1, description="a folder, an archive (.tar, .tar.gz, .zip) or docker-image://REFERENCE"
    )
    dockerfile: str | None = Field(None, description="path of the Dockerfile within the source; default: Dockerfile")
    target: str | None = Field(None, description="stage to build, of a Dockerfile with several")
    build_args: dict[str, str] = Field({}, description="values of the Dockerfile's ARGs; not for secrets")
    labels: dict[str, str] = Field({}, description="labels of the image")
    platform: str | None = Field(
        None, description="for example linux/amd64; default: the config's, else the builder's own"
    )
    secrets: tuple[Annotated[str, _checked(_SECRET_ID.match, "an id of a build secret")], ...] = Field(
        (), description="ids of build secrets; their values are files on the worker"
    )
    config: Annotated[str, _checked(_NAME.match, "the name of a config")] | None = Field(
        None, description="name of a launch config in the workers' config folder"
    )
    destination: str | None = Field(None, description="repository to push to, without a tag; default: the config's")
    tags: tuple[Annotated[str, _checked(is_tag, "a tag")], ...] = Field(
        (), description="tags to add beside the source hash"
    )
    force: bool = Field(False, description="build even if the image exists")
    timeout: float | None = Field(None, gt=0, description="seconds that the build may take once it has started")
    revision: str | None = Field(None, description="revision of the source, for the image's label")
    source_url: str | None = Field(None, description="where the source is published, for the image's label")

    def __repr__(self) -> str:
        """Without build arguments and labels, which people put secrets into."""
        return f"BuildRequest(source={self.source!r}, dockerfile={self.dockerfile!r}, config={self.config!r})"

    __str__ = __repr__

    @classmethod
    def parse(cls, data: object) -> Self:
        """Read a request from outside; `UserError` names each field that is wrong."""
        try:
            return cls.model_validate(data, extra="forbid")
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'request'}: {e['msg']}" for e in error.errors())
            raise UserError(
                f"The build request is not valid: {faults}",
                "docs/schema/build-request.json describes the request",
            ) from None


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
    state: State | None = None
    log: tuple[str, ...] = Field((), description="the last lines of the build's log")

    @classmethod
    def of(cls, error: ImagemillError, state: State | None = None, log: tuple[str, ...] = ()) -> Self:
        return cls(kind=error.kind, message=error.message, hint=error.hint, state=state, log=log)


class Build(Message):
    """The message that goes down the chain: the request and all facts found so far."""

    id: str
    request: BuildRequest
    started: float
    deadline: float | None = None
    config: LaunchConfig | None = None
    source_hash: str | None = None
    image: str | None = Field(None, description="repository:tag that is being made")
    existing_digest: str | None = None
    context: str | None = Field(None, description="name of the packed context in the context store")
    locked: bool = Field(False, description="whether the build has taken the lock on its image")
    uploads: int = Field(0, description="how often the context has been brought to the store")
    digest: str | None = None
    warnings: tuple[str, ...] = ()

    def knowing(self, **facts: Any) -> Self:
        """A copy that knows more."""
        return self.model_copy(update=facts)

    def __repr__(self) -> str:
        return f"Build(id={self.id!r}, request={self.request!r})"

    __str__ = __repr__


class BuildReport(Message):
    """How a build ended: the result of `imagemill.build_image`."""

    id: str
    status: Literal["succeeded", "failed", "cancelled"]
    image: str | None = Field(None, description="the image, pinned: repository@sha256:…")
    digest: str | None = None
    tags: tuple[str, ...] = Field((), description="the image by its tags: repository:tag")
    source_hash: str | None = None
    built: bool = Field(False, description="false where the image was there already")
    builder: str | None = None
    steps: tuple[StepTime, ...] = ()
    seconds: float = Field(0, description="from the first step's start to the report")
    warnings: tuple[str, ...] = ()
    error: Failure | None = None

    def raise_for_status(self) -> Self:
        """The report itself if the build succeeded, else its error as an exception."""
        if self.error is not None:
            raise BuildFailed(self)
        return self


class BuildFailed(ImagemillError):
    """A build that was waited for has failed; `report` says all that is known."""

    def __init__(self, report: BuildReport) -> None:
        error = report.error or Failure(kind="ImagemillError", message="The build failed")
        super().__init__(error.message, error.hint)
        self.report = report
