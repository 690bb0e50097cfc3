"""What the base images of a Dockerfile are at this time: the digest that a tag has at its registry.

A tag may be moved to other content, so that its name alone does not say what an image is made from.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Thread
from typing import Protocol

from imagemill.errors import ImagemillError, PermissionDenied, ServiceUnreachable, UserError
from imagemill.ports import Progress, Registry
from imagemill.reference import ImageReference

_AT_ONCE = 8
_CHECK_SECONDS = 0.5
_WAY_OUT = (
    "if the builder has the base image of its own, set builder.base-digests: false in the launch"
    " config, and the names of base images alone count"
)
_BY_NAME = (
    "The registry of the base image {} does not have it for us{}: it counts by its name alone, and"
    " an update of it is not noticed"
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

    def ask(image: str, reference: ImageReference) -> str | None:
        try:
            return registry(reference).digest(reference)
        except PermissionDenied as refusal:
            refusals[image] = f" ({refusal.message})"
            return None
        except ServiceUnreachable as error:
            error.hint_also(_WAY_OUT)
            raise

    answers: dict[str, str | None] = dict.fromkeys(images)
    wanted = {image: found for image in answers if (found := _reference(image))}
    if remembered and not anew:
        answers |= {image: remembered.find(str(wanted[image])) for image in wanted}
    asked = [(image, reference) for image, reference in wanted.items() if not answers[image]]
    for image, digest in _together(ask, asked, progress).items():
        answers[image] = digest
        if remembered and digest:
            remembered.keep(str(wanted[image]), digest)
    for image, digest in answers.items():
        if digest is None:
            progress.warn(_BY_NAME.format(image, refusals.get(image, "")))
    return {image: digest for image, digest in answers.items() if digest}


def _reference(image: str) -> ImageReference | None:
    """Return the image with its tag; None for what the builder says is wrong, and in which line."""
    try:
        found = ImageReference.parse(image)
    except UserError:
        return None
    return found if found.tag else found.with_tag("latest")


def _together(
    ask: Callable[[str, ImageReference], str | None],
    wanted: Sequence[tuple[str, ImageReference]],
    progress: Progress,
) -> dict[str, str | None]:
    """Return the answer for each image. Who is not to go on waits for none, hence the daemons."""
    answers: dict[str, str | None] = {}
    failures: list[ImagemillError] = []
    waiting = iter(wanted)

    def work() -> None:
        for image, reference in waiting:
            try:
                answers[image] = ask(image, reference)
            except ImagemillError as error:
                failures.append(error)

    threads = [Thread(target=work, daemon=True) for _ in wanted[:_AT_ONCE]]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            progress.check()
            thread.join(_CHECK_SECONDS)
    if failures:
        raise failures[0]
    return {image: answers[image] for image, _ in wanted}
