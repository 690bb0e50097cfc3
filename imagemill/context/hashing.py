"""The source hash of a request: everything that its image is made from, by the request itself and
by the config.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from imagemill import __version__, context
from imagemill.config.kaniko_inputs import kaniko_inputs
from imagemill.config.model import Builder
from imagemill.context import Manifest
from imagemill.dockerfile.base_images import bases
from imagemill.dockerfile.generate import chosen
from imagemill.messages import BuildRequest


@dataclass(frozen=True)
class Inputs:
    """What an image is made from besides the context: by the request, and by the config where the
    request says nothing.
    """

    target: str | None
    platform: str | None
    build_args: dict[str, str]
    labels: dict[str, str]
    secrets: tuple[str, ...]
    options: dict[str, str]
    """Other options of the builder that change the image."""

    @classmethod
    def of(cls, request: BuildRequest, builder: Builder) -> Self:
        """Return the inputs of the image that the builder makes for the request."""
        given = kaniko_inputs(builder)
        return cls(
            request.target or given.target,
            platform(request, builder) or given.platform,
            given.build_args | dict(request.build_args),
            given.labels | dict(request.labels),
            tuple(sorted((*request.secrets, *(f"ssh:{name}" for name in request.ssh)))),
            given.options,
        )


def platform(request: BuildRequest, builder: Builder) -> str | None:
    """Return the target platform; None for the builder's own."""
    return request.platform or builder.platform


def source_hash(request: BuildRequest, builder: Builder, manifest: Manifest) -> str:
    """Return the hash over the manifest and all other inputs of the image."""
    return context.source_hash(manifest, **asdict(Inputs.of(request, builder)))


def with_bases(source_hash: str, bases: Mapping[str, str]) -> str:
    """Return the source hash, with what the base images are at this time: image → digest."""
    if not bases:
        return source_hash
    text = json.dumps([source_hash, sorted(bases.items())])
    return hashlib.sha256(text.encode()).hexdigest()


def base_images(request: BuildRequest, manifest: Manifest) -> tuple[str, ...]:
    """Return the images that the build's stages stand on, and whose content may change under their
    names.
    """
    text = manifest.dockerfile.content.decode(errors="replace")
    found = bases(text, request.build_args, request.target)
    return tuple(sorted({image for image in found if image}))


def cache_key(request: BuildRequest, builder: Builder, pinned: str) -> str:
    """All that the hash depends on, as one text, where the source cannot change any more: `pinned`
    names it.
    """
    inputs = {
        "format": context.FORMAT,
        "version": __version__,  # what generates Dockerfiles changes with it
        "source": pinned,
        "dockerfile": repr(chosen(request, builder)),
        **asdict(Inputs.of(request, builder)),
    }
    return json.dumps(inputs, sort_keys=True)
