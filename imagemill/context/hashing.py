"""The source hash of a request: everything that its image is made from, by the request itself and
by the config.
"""

import hashlib
import json
from collections.abc import Mapping

from imagemill import __version__, context
from imagemill.config.kaniko_job import image_arguments
from imagemill.config.model import Builder
from imagemill.context import Manifest
from imagemill.dockerfile.base_images import bases
from imagemill.dockerfile.generate import chosen
from imagemill.messages import BuildRequest


def platform(request: BuildRequest, builder: Builder) -> str | None:
    """The target platform; None for the builder's own."""
    return request.platform or builder.platform


def arguments(builder: Builder) -> tuple[str, ...]:
    """The builder's arguments that change the image, by the config."""
    return image_arguments(builder.kaniko_config) if builder.type == "kaniko" else ()


def source_hash(request: BuildRequest, builder: Builder, manifest: Manifest) -> str:
    """The hash over the manifest and all other inputs of the image."""
    return context.source_hash(
        manifest,
        target=request.target,
        build_args=request.build_args,
        platform=platform(request, builder),
        labels=request.labels,
        secrets=request.secrets,
        arguments=arguments(builder),
    )


def with_bases(source_hash: str, bases: Mapping[str, str]) -> str:
    """The source hash, with what the base images are at this time: image → digest."""
    if not bases:
        return source_hash
    text = json.dumps([source_hash, sorted(bases.items())])
    return hashlib.sha256(text.encode()).hexdigest()


def base_images(request: BuildRequest, manifest: Manifest) -> tuple[str, ...]:
    """The images that the build's stages stand on, and whose content may change under their names."""
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
        "target": request.target,
        "build_args": request.build_args,
        "platform": platform(request, builder),
        "labels": request.labels,
        "secrets": sorted(request.secrets),
        "arguments": arguments(builder),
    }
    return json.dumps(inputs, sort_keys=True)
