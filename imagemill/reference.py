"""Image references, parsed in this one place.

The grammar, the limits and the defaults (`busybox` is `docker.io/library/busybox`) are those of
Docker: https://github.com/distribution/reference, `reference.go` and `normalize.go`. What Docker
leaves for later to find out is refused here: ports above 65535 and IPv6 addresses that are none.
"""

import re
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from typing import Self

from imagemill.clouds.hosts import ECR_ARN, ecr_host
from imagemill.errors import UserError
from imagemill.grammar import TAG

DOCKER_HUB = "docker.io"

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(
    rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?P<ipv6>[a-fA-F0-9:]+)\])(?::(?P<port>[0-9]{{1,5}}))?"
)
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_PATH_LENGTH = 255
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}")
_IMAGE_ID = re.compile(r"[a-f0-9]{64}")
_FORM = "a reference is [HOST[:PORT]/]PATH[:TAG][@sha256:DIGEST], without credentials"


@dataclass(frozen=True)
class ImageReference:
    """A repository in a registry and, if given, the tag and the digest of an image in it.

    Always in full, so equal references are equal as values and as text. Any part that is not valid
    is a `UserError`.
    """

    registry: str
    """Host and port as written: `docker.io`, `localhost:5000`, `[::1]:5000`."""
    path: str
    """The repository within the registry: `library/busybox`."""
    tag: str | None = None
    digest: str | None = None
    """Algorithm and hex digits: `sha256:…`."""

    def __post_init__(self) -> None:
        _check_registry(self.registry)
        _check_path(self.path)
        if _split(self.repository) != (self.registry, self.path):
            raise UserError(
                f"{self.repository!r} is not a repository in full",
                "parse it, so that it is made full",
            )
        if self.tag is not None and not is_tag(self.tag):
            raise UserError(
                f"{self.tag!r} is not a tag",
                TAG.form,
            )
        if self.digest is not None and not is_digest(self.digest):
            raise UserError(
                f"{self.digest!r} is not a digest",
                "a digest is sha256: and 64 lower-case hex digits",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what people and files write; `https://` in front is dropped. `UserError` says what
        is wrong with it.
        """
        if arn := ECR_ARN.fullmatch(text):
            hint = f"write {ecr_host(arn['account'], arn['region'])}/{arn['path']}"
            raise UserError(f"{text!r} is an ARN, which no registry is asked by", hint)
        name, at, digest = _without_scheme(text).partition("@")
        if at and not is_digest(digest):
            # What is before an '@' may be a password: it is not repeated.
            raise UserError(
                f"What follows '@' in an image reference is {_last(digest)!r}, no digest", _FORM
            )
        registry, remainder = _split(name)
        path, colon, tag = remainder.partition(":")
        try:
            return cls(registry, path, tag if colon else None, digest if at else None)
        except UserError as error:
            raise UserError(
                f"{text!r} is not an image reference: {error.message}", error.hint
            ) from None

    @classmethod
    def parse_destination(cls, text: str) -> Self:
        """Read a repository to push to: like `parse`, but a tag or a digest is a `UserError`."""
        destination = cls.parse(text)
        if destination.tag is None and destination.digest is None:
            return destination
        what = "a tag" if destination.digest is None else "a digest"
        hint = f"write {destination.repository}: the tag is the source hash, and further tags are asked for by build"
        if "/" not in _without_scheme(text):
            hint = "a registry needs a repository behind it: HOST:PORT/REPOSITORY"
        raise UserError(f"The destination {text!r} has {what}", hint)

    @property
    def repository(self) -> str:
        """Registry and path, without tag and digest."""
        return f"{self.registry}/{self.path}"

    @property
    def pinned(self) -> str:
        """`repository@digest`, which can only ever be one image; `ValueError` if there is no
        digest.
        """
        if self.digest is None:
            raise ValueError(f"{self} has no digest")
        return f"{self.repository}@{self.digest}"

    def with_tag(self, tag: str | None) -> Self:
        """Return the same with this tag, whatever tag it had."""
        return replace(self, tag=tag)

    def with_digest(self, digest: str | None) -> Self:
        """Return the same with this digest, whatever digest it had."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{self.repository}{tag}{digest}"


def is_tag(text: str) -> bool:
    """Whether the text can be the tag of an image."""
    return TAG.fits(text)


def is_digest(text: str) -> bool:
    """Whether this is a digest of an algorithm that images are named by."""
    return _DIGEST.fullmatch(text) is not None


def _last(text: str) -> str:
    """Return what follows the last '@', and so holds no password."""
    return text.rpartition("@")[2]


def _without_scheme(text: str) -> str:
    """Return the reference without `https://`, which people copy along from the browser."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        rest = text
    elif scheme != "https":
        raise UserError(
            f"There is a scheme in front of the image reference {_last(rest)!r}",
            "leave out the scheme; registries that speak plain HTTP stand in IMAGEMILL_INSECURE_REGISTRIES",
        )
    if not rest:
        raise UserError("An image reference is empty", _FORM)
    if _IMAGE_ID.fullmatch(rest):
        raise UserError(f"{rest!r} is the id of an image, not a reference", _FORM)
    return rest


def _split(name: str) -> tuple[str, str]:
    """Registry and remainder. A first component is a registry if it could not be part of a path on
    Docker Hub.
    """
    first, slash, rest = name.partition("/")
    if not slash or not (
        first == "localhost" or "." in first or ":" in first or first != first.lower()
    ):
        first, rest = DOCKER_HUB, name
    if first == "index.docker.io":
        first = DOCKER_HUB
    if first == DOCKER_HUB and "/" not in rest:
        rest = f"library/{rest}"
    return first, rest


def _check_registry(registry: str) -> None:
    match = _REGISTRY.fullmatch(registry)
    if (
        not match
        or int(match["port"] or 0) > 65535
        or (match["ipv6"] and not _is_ipv6(match["ipv6"]))
    ):
        raise UserError(f"{registry!r} is not a registry's host and port", _FORM)


def _is_ipv6(address: str) -> bool:
    try:
        IPv6Address(address)
    except ValueError:
        return False
    return True


def _check_path(path: str) -> None:
    if len(path) > _PATH_LENGTH:
        raise UserError(
            f"the repository is longer than {_PATH_LENGTH} characters", "choose a shorter one"
        )
    if path != path.lower() and _PATH.fullmatch(path.lower()):
        raise UserError(
            f"the repository {path!r} has upper-case letters", f"write {path.lower()!r}"
        )
    if not _PATH.fullmatch(path):
        raise UserError(
            f"{path!r} is not a repository",
            "a repository is lower-case letters and digits, with '.', '_', '__', '-' within and '/' between its parts",
        )
