"""The four ports of the domain, and what their adapters may use of the step that runs them.

Each port has one package (`sources`, `objects`, `registries`, `builders`) whose `__init__` holds the
table of adapters; an adapter is one module. Adapters translate the errors they know into
`imagemill.errors` at their edge and let anything else through as it is.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from imagemill.messages import State
from imagemill.reference import ImageReference


class Progress(Protocol):
    """The running step, as an adapter sees it: where to log, and whether to go on."""

    def log(self, line: str) -> None:
        """Add one line (without its line end) to the build's log."""

    def warn(self, line: str) -> None:
        """Add one line to the build's log, and to the warnings in its report."""

    def amount(self, text: str) -> None:
        """Say how far a step has come that takes long: of what is said, the last counts. An empty
        text says that it is over.
        """

    def check(self) -> None:
        """Raise if the build has been cancelled or its time is up; cheap, call it at least once a
        second.
        """

    def enter(self, state: State) -> None:
        """Say that the build has come to another state within this step."""

    def remaining(self) -> float:
        """Seconds until the step's deadline."""


class Quiet:
    """A `Progress` that keeps its lines and never stops: for work outside the chain."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.lines.append(line)

    def amount(self, text: str) -> None:
        pass

    def check(self) -> None:
        pass

    def enter(self, state: State) -> None:
        pass

    def remaining(self) -> float:
        return float("inf")


class Source(Protocol):
    """Where code comes from: a folder, an archive, an image or the like."""

    @property
    def image(self) -> ImageReference | None:
        """The image itself where the source is one already, and so needs no build."""

    @property
    def place(self) -> str:
        """Where it lies, in one spelling, without what is wanted of it: what a policy names."""

    def pinned(self, progress: Progress) -> str | None:
        """Return a text that names the very content which the source has now, and nothing else
        ever; None if there is none.

        The source of that text, on any worker, has that content, or cannot be read any more.
        """

    def fetch(self, scratch: Path, progress: Progress) -> Path:
        """Bring the source onto this node and return its top folder, to be read only.

        `scratch` is the path of a folder for what has to be unpacked; made if it is needed, removed
        by the caller.
        """


@dataclass(frozen=True)
class SignedUrl:
    """A URL by which whoever has it reads one object, for a while. Never printed."""

    text: str = field(repr=False)
    expires: float
    """When it ends, in seconds since 1970."""


class ContextStore(Protocol):
    """Where packed contexts lie between the step that packs and the step that builds."""

    def create(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Return a writable stream for the object `name`; stored when the block ends, dropped when
        it raises.
        """

    def uri(self, name: str) -> str:
        """Where the object `name` is, or would be."""

    def exists(self, name: str) -> bool:
        """Whether the object `name` is there, whole."""

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Return a readable stream of the object; `FileNotFoundError` if it is not there."""

    def delete(self, name: str) -> None:
        """Remove the object; no error if it is not there."""

    def signed(self, name: str, seconds: float) -> SignedUrl | None:
        """Return a URL that reads the object for so many seconds, or fewer where the worker's own
        credentials end earlier; None if the store is none that URLs lead to.

        It is not asked whether the object is there. `PermissionDenied` if the worker may not sign.
        """


@dataclass(frozen=True)
class Credentials:
    """What a registry wants to hear: user and password, an identity token, or a token of its own.

    Never printed.
    """

    username: str = field(repr=False)
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    expires: float | None = None
    """When they end, in seconds since 1970; None: not known, or never."""
    registry_token: str = field(default="", repr=False)
    """A token that the registry itself takes, as it is."""
    is_narrow: bool = False
    """Whether it is good for the repositories of one build alone (`Registry.push_token`)."""


@dataclass(frozen=True)
class PushRole:
    """A role of a cloud that the worker may assume for the push of a build."""

    name: str
    """As the cloud names it: an ARN."""
    session: str
    """What the cloud's own records name the session after."""


class Registry(Protocol):
    """The registry that a destination lies in."""

    def digest(self, reference: ImageReference) -> str | None:
        """Return the digest (`sha256:…`) of the tag or digest in `reference`; `None` only if the
        registry says there is no such thing. A question that could not be asked is an error
        (`ServiceUnreachable`, `PermissionDenied`).
        """

    def tag(self, reference: ImageReference, tags: tuple[str, ...]) -> None:
        """Give what `reference` (with a digest) names these tags too, in the same repository."""

    def credentials(self, repository: ImageReference) -> Credentials | None:
        """Credentials for pushing to the repository; `None` if it is to be done anonymously.

        Fresh ones, if those that were handed out before end soon: ask again rather than keep them.
        """

    def push_token(
        self,
        repository: ImageReference,
        pushed: Iterable[ImageReference] = (),
        pulled: Iterable[ImageReference] = (),
        role: PushRole | None = None,
    ) -> Credentials | None:
        """Return a token that may push to the repository, and to those of `pushed`, pull from those
        of `pulled`, and do nothing else; None where the registry gives none that lasts for a build.

        All of them are of one registry. `role` is for registries whose tokens have the rights of
        whoever asks for them.
        """

    def prepare(self, repository: ImageReference) -> None:
        """Make sure that one can push to the repository: create it where the registry wants that
        and lets us.
        """

    def delete(self, reference: ImageReference) -> None:
        """Remove the tag in `reference`; no error if it is not there."""


@dataclass(frozen=True)
class BuildInputs:
    """What a builder needs to know of one build, besides the packed context."""

    image: ImageReference
    """Repository and tag to push to."""
    target: str | None = None
    platform: str | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict, repr=False)
    """Build secrets: the id that the Dockerfile mounts → the worker's own file."""
    source_hash: str = ""
    """The hash over all inputs of the image: equal ones make equal images."""
    build_id: str = ""
    no_cache: bool = False
    """Whether nothing is to be taken from the builder's cache of layers."""
    pull: bool = False
    """Whether base images are to be asked for anew."""
    cache_from: tuple[str, ...] = ()
    """Images in registries whose layers may be taken."""
    cache_to: str | None = None
    """Where to put the layers, as an image in a registry."""
    layer_cache: ImageReference | None = None
    """The operator's place for the layers of builds that may share them."""
    ssh: Mapping[str, Path | None] = field(default_factory=dict, repr=False)
    """SSH keys that instructions may use: id → the worker's own file; None: its agent."""
    tenant: str = ""
    """Who has asked for the build, if tenants are told apart."""
    collector: str | None = None
    """Where spans are sent to, over OTLP by HTTP; None: nowhere."""
    traceparent: str | None = None
    """The span that the builder's own belong below, as W3C Trace Context writes it."""

    @property
    def cache(self) -> str:
        """What names the caches of the builds that may share them: those of one tenant for one
        repository.
        """
        return hashlib.sha256(f"{self.tenant}\n{self.image.repository}".encode()).hexdigest()[:32]


class StoredContext(Protocol):
    """The context of one build, as its builder gets it (docs/adr/0001-the-packed-context.md)."""

    @property
    def uri(self) -> str | None:
        """Where the packed context lies in its store; None if it is in none, but on this
        machine.
        """

    def dockerfile(self) -> str:
        """Return the text of its Dockerfile, without the rest of it; `FileNotFoundError` if this
        machine does not see the store.
        """

    def folder(self, scratch: Path, progress: Progress) -> Path:
        """Return a folder with the Dockerfile and the context in it, to be read only.

        `scratch` is the path of a folder to unpack into; made if it is needed, removed by the
        caller.
        """


Over = Callable[[str, str], bool]
"""Whether nobody has to do any more with what a build has begun, for an image."""


class Builder(Protocol):
    """What turns a context into an image in a registry."""

    def build(
        self, inputs: BuildInputs, context: StoredContext, registry: Registry, progress: Progress
    ) -> str:
        """Build from the context, push, and return the pushed digest."""

    def discard(self, build: str) -> None:
        """Remove what the build with this id may have left elsewhere, running or done, when its
        worker died.

        What has failed may stay for a while, to be looked at.
        """

    def tidy(self, over: Over) -> None:
        """Remove what builds have left whose worker died: on this node all of it, elsewhere that of
        builds which are over.
        """
