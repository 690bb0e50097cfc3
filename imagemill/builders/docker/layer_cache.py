"""Layers in a registry that later builds may take, also on other machines.

An engine whose images are containerd's sends all layers there while it builds. Another one can push
the layers of the last stage alone, with what made them written into the config of an image, which
therefore is not the image that was asked for.

https://docs.docker.com/build/cache/backends/
"""

from dataclasses import dataclass
from typing import Self

from imagemill.ports import BuildInputs
from imagemill.reference import ImageReference

CONTAINERD = "io.containerd.snapshotter"
"""In what `docker info` says of an engine that can export caches by itself:
https://docs.docker.com/engine/storage/containerd/.
"""

INLINE = "--build-arg=BUILDKIT_INLINE_CACHE=1"


@dataclass(frozen=True)
class LayerCache:
    """What a build takes layers from, and where it leaves them."""

    arguments: tuple[str, ...] = ()
    """Of `docker build`."""
    images: tuple[ImageReference, ...] = ()
    """What is to be pushed besides."""

    @classmethod
    def of(cls, inputs: BuildInputs, exports: bool) -> Self:
        """Return what the build's inputs say; `exports` says that the engine sends layers by itself."""
        places = places_of(inputs)
        own = filter(None, [inputs.layer_cache])
        found = () if inputs.no_cache else dict.fromkeys((*inputs.cache_from, *map(str, own)))
        arguments = [f"--cache-from={reference}" for reference in found]
        if exports:
            to = "--cache-to=type=registry,mode=max,ignore-error=true,ref="
            arguments += [f"{to}{place}" for place in places]
        return cls(tuple(arguments), () if exports else places)


def places_of(inputs: BuildInputs) -> tuple[ImageReference, ...]:
    """Return where the layers are to be left."""
    given = ImageReference.parse(inputs.cache_to) if inputs.cache_to else None
    return tuple(dict.fromkeys(filter(None, (given, inputs.layer_cache))))
