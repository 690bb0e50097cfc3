"""The message that travels down the chain.

`Build` is frozen and changed by copy: a step returns a copy that knows one more fact, and does
nothing if its fact is already there. That one rule covers registry hits, builders that push by
themselves, retries and redelivery.
"""

from typing import Any, Self

from pydantic import Field

from imagemill.config import LaunchConfig
from imagemill.messages import BuildId, BuildRequest, Failure, Message


class Build(Message):
    """The message that goes down the chain: the request and all facts found so far."""

    id: BuildId
    request: BuildRequest
    started: float
    tenant: str | None = Field(None, description="who has signed the request, if anybody has")
    in_line: bool = Field(False, description="whether it counts among the builds of its tenant")
    deadline: float | None = None
    config: LaunchConfig | None = None
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
