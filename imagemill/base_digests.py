"""What the base images of a Dockerfile are at this time: the digest that a tag has at its registry.

A tag may be moved to other content, so that its name alone does not say what an image is made from.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from imagemill.errors import PermissionDenied, ServiceUnreachable, UserError
from imagemill.ports import Progress, Registry
from imagemill.reference import ImageReference

_AT_ONCE = 8
_WAY_OUT = (
    "if the builder has the base image of its own, set builder.base-digests: false in the launch"
    " config, and the names of base images alone count"
)


class Remembered(Protocol):
    """Digests that were found a while ago, by the image with its registry and tag."""

    def find(self, image: str) -> str | None: ...

    def keep(self, image: str, digest: str) -> None: ...


def digests(
    images: Iterable[str],
    registry: Callable[[ImageReference], Registry],
    remembered: Remembered | None,
    progress: Progress,
    *,
    anew: bool = False,
) -> Mapping[str, str]:
    """Return the digest of each image, asked for at the same time; `anew` also where it is
    remembered.

    An image that its registry does not have for us, and that the builder may have all the same,
    counts by its name, and a warning says so. `ServiceUnreachable` and the like if a registry does
    not answer.
    """
    refusals: dict[str, str] = {}

    def find(image: str) -> str | None:
        try:
            reference = ImageReference.parse(image)
        except UserError:
            return None  # the builder says what is wrong with it, and in which line
        if reference.tag is None:
            reference = reference.with_tag("latest")
        if remembered and not anew and (known := remembered.find(str(reference))):
            return known
        try:
            found = registry(reference).digest(reference)
        except PermissionDenied as refusal:
            refusals[image] = f" ({refusal.message})"
            return None
        except ServiceUnreachable as error:
            error.hint_also(_WAY_OUT)
            raise
        if found and remembered:
            remembered.keep(str(reference), found)
        return found

    wanted = list(images)
    if not wanted:
        return {}
    with ThreadPoolExecutor(max_workers=min(len(wanted), _AT_ONCE)) as threads:
        answers = dict(zip(wanted, threads.map(find, wanted), strict=True))
    for image in [image for image, digest in answers.items() if digest is None]:
        progress.warn(
            f"The registry of the base image {image} does not have it for us"
            f"{refusals.get(image, '')}: it counts by its name alone, and an update of it is not"
            " noticed"
        )
    return {image: digest for image, digest in answers.items() if digest is not None}
