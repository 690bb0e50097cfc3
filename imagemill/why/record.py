"""The record of everything that an image is made from: what `imagemill why` compares, small enough
to be kept.

It tells that something differs, but not what the contents were: of files it has digests, and of
build arguments, whose values may be secrets, too. Digests are cut to 8 bytes, enough to see a
difference; the source hash is no shorter for it.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from imagemill.config.model import Builder
from imagemill.context import FORMAT, Entries, Entry, Manifest
from imagemill.context.entries import CUT, decoded, encoded
from imagemill.context.hashing import Inputs
from imagemill.dockerfile.base_images import FromLine, bases, stages
from imagemill.dockerfile.cache_keys import keyed
from imagemill.errors import OperatorError, UserError
from imagemill.messages import BuildRequest

VERSION = 2
"""First byte of a record that is kept. Raise it when records are written so that the code of before
would misread them."""

_DIGITS = 2 * CUT
"""Of a digest, in hex."""

_DAMAGES = (zlib.error, ValueError, LookupError, TypeError, AttributeError, OverflowError)
"""What reading bytes that are no record, or values of other types or sizes, ends in."""


class DockerfileInput(NamedTuple):
    """The Dockerfile that an image is built by."""

    path: str
    """Relative to the source's top."""
    digest: str
    """Of its content; cut."""
    generated: bool = False
    """Whether the source has none, and it was generated."""


@dataclass(frozen=True)
class InputRecord:
    """All inputs of an image. Two builds with the same source hash have the same record."""

    recipe: DockerfileInput
    entries: Sequence[Entry] = ()
    """What the build can see, as in the `Manifest`; their `sha256` is cut."""
    stages: tuple[FromLine, ...] = ()
    target: str | None = None
    platform: str | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    """Name → digest of the name and the value; cut."""
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    """Ids of build secrets, sorted."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of the builder that change the image."""
    keys: tuple[str, ...] = ()
    """What the instructions that are run are known by (`imagemill.dockerfile.cache_keys`)."""
    format: int = FORMAT
    """How the source hash is made, which is an input too."""

    def dump(self) -> bytes:
        """Return the record as it is kept, its entries in columns, which compresses better: the same
        bytes for the same record.
        """
        entries = Entries.of(self.entries)
        sizes, digests, links = entries.pack()
        columns = {
            "kinds": entries.kinds.decode(),
            "paths": decoded(entries.paths),
            "sizes": list(sizes),
            "links": [link.decode(errors="surrogateescape") for link in links],
        }
        head = json.dumps(self._head() | columns, sort_keys=True, separators=(",", ":"))
        return bytes([VERSION]) + zlib.compress(head.encode() + b"\n" + digests, 1)

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Read what `dump` wrote. `UserError` if that was a newer version of Imagemill,
        `OperatorError` if the record is damaged.
        """
        if data[:1] > bytes([VERSION]):
            raise UserError(
                f"The record of the inputs is of version {data[0]}, and this Imagemill reads version {VERSION}",
                "use an Imagemill that is as new as the workers'",
            )
        try:
            head, _, digests = zlib.decompress(data[1:]).partition(b"\n")
            return cls(**_read(json.loads(head), digests))
        except _DAMAGES as error:
            raise OperatorError(
                f"The record of the inputs is damaged: {error}",
                "build once more, which writes it anew",
            ) from error

    def _head(self) -> dict[str, Any]:
        """All but the entries."""
        return {
            "recipe": self.recipe,
            "stages": self.stages,
            "target": self.target,
            "platform": self.platform,
            "build_args": dict(self.build_args),
            "labels": dict(self.labels),
            "secrets": self.secrets,
            # Left out where there are none: those who do not know them read the record still.
            **({"options": dict(self.options)} if self.options else {}),
            "keys": self.keys,
            "format": self.format,
        }


def record(
    request: BuildRequest,
    builder: Builder,
    manifest: Manifest,
    digests: Mapping[str, str] | None = None,
) -> InputRecord:
    """Return the record of the image that `hashing.source_hash` names by the same arguments."""
    recipe, inputs = manifest.dockerfile, Inputs.of(request, builder)
    text = recipe.content.decode(errors="replace")
    keys = keyed(
        text, inputs.build_args, target=inputs.target, platform=inputs.platform, digests=digests
    )
    return InputRecord(
        recipe=DockerfileInput(recipe.path, recipe.sha256[:_DIGITS], recipe.generated),
        entries=Entries.of(manifest.entries).cut(),
        stages=tuple(_stages(text, request, digests or {})),
        target=inputs.target,
        platform=inputs.platform,
        build_args={name: _digest(name, value) for name, value in inputs.build_args.items()},
        labels=inputs.labels,
        secrets=inputs.secrets,
        options=inputs.options,
        keys=tuple(each.key for each in keys),
    )


def _stages(
    dockerfile: str, request: BuildRequest, digests: Mapping[str, str]
) -> Iterator[FromLine]:
    """Yield the stages, each base image with the digest that it had."""
    found = stages(dockerfile, request.build_args)
    images = bases(dockerfile, request.build_args, request.target)
    for stage, image in zip(found, images, strict=False):
        digest = digests.get(str(image))
        yield stage._replace(base=f"{stage.base}@{digest}") if digest else stage


def _digest(name: str, value: str) -> str:
    """With the name, so that it does not show which arguments have the same value."""
    return hashlib.sha256(json.dumps([name, value]).encode()).hexdigest()[:_DIGITS]


def _read(head: dict[str, Any], digests: bytes) -> dict[str, Any]:
    """Return the fields of a record."""
    kinds, paths, sizes, links = (head.pop(name) for name in ("kinds", "paths", "sizes", "links"))
    return head | {
        "recipe": DockerfileInput(*head["recipe"]),
        "stages": tuple(FromLine(*stage) for stage in head["stages"]),
        "secrets": tuple(head["secrets"]),
        "keys": tuple(head.get("keys", ())),
        "entries": Entries.unpack(
            kinds.encode(),
            encoded(paths),
            sizes,
            digests,
            [link.encode(errors="surrogateescape") for link in links],
        ),
    }
