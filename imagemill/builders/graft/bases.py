"""What the images that a Dockerfile names are at present: their digests, and what the final stage's
base image brings with it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from imagemill.builders.graft import Refusal
from imagemill.encoding import json_value
from imagemill.errors import ImagemillError
from imagemill.reference import ImageReference
from imagemill.registries.blobs import Blobs
from imagemill.registries.oci import MANIFEST_TYPES
from imagemill.state.grafts import Grafts
from imagemill.time_limits import time_limit

_FORMAT = 2
"""Of what is kept of a base image."""

_SECONDS = 5.0
"""The most that a registry may take; the builder may have the image from elsewhere."""

_LISTS = MANIFEST_TYPES[0], MANIFEST_TYPES[1]

Open = Callable[[ImageReference], Blobs]
"""The registry that an image lies in."""


@dataclass(frozen=True)
class Base:
    """What a stage begins with."""

    diff_ids: tuple[str, ...] = ()
    working_folder: str = "/"
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    on_build: bool = False
    """Whether it has instructions of its own for those who build on it."""


def digest(name: str, registries: Open) -> str:
    """Return the digest that an image has now; `Refusal` if that cannot be told."""
    try:
        reference = ImageReference.parse(name)
        with time_limit(_SECONDS):
            found = reference.digest or registries(reference).digest(reference)
    except ImagemillError as error:
        raise Refusal(f"the image {name} cannot be looked at: {error.message}") from error
    if found is None:
        raise Refusal(f"the image {name} is in no registry")
    return found


def base(name: str, pinned: str, platform: str, registries: Open, known: Grafts) -> Base:
    """Return what the image `name` with the digest `pinned` is for `platform` (`linux/amd64`)."""
    name_of_fact = f"{_FORMAT}:{pinned}:{platform}"
    kept = known.find_fact(name_of_fact)
    if kept is None:
        try:
            with time_limit(_SECONDS):
                found = _ask(ImageReference.parse(name).with_digest(pinned), platform, registries)
        except ImagemillError as error:
            raise Refusal(f"the image {name} cannot be looked at: {error.message}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Refusal(f"the image {name} is none that can be read") from error
        kept = json.dumps(asdict(found))
        known.keep_fact(name_of_fact, kept)
    fields = json.loads(kept)
    return Base(**{**fields, "diff_ids": tuple(fields["diff_ids"])})


def _ask(reference: ImageReference, platform: str, registries: Open) -> Base:
    blobs = registries(reference)
    stored = blobs.manifest(reference)
    if stored is not None and stored.media_type in _LISTS:
        chosen = _of_platform(json_value(stored.body), platform)
        stored = blobs.manifest(reference.with_digest(chosen))
    if stored is None or stored.media_type in _LISTS:
        raise Refusal(f"the image {reference} is not there for {platform}")
    config = json_value(blobs.read(reference, json_value(stored.body)["config"]["digest"]))
    settings = config.get("config") or {}
    return Base(
        diff_ids=tuple(config["rootfs"]["diff_ids"]),
        working_folder=settings.get("WorkingDir") or "/",
        user=settings.get("User") or "",
        labels=dict(settings.get("Labels") or {}),
        on_build=bool(settings.get("OnBuild")),
    )


def _of_platform(index: dict[str, Any], platform: str) -> str:
    """Return the digest for a platform, or else for the nearest one: builders have ways of their own
    to choose, and it is compared with what they have built on.
    """

    def names(entry: dict[str, Any]) -> list[str]:
        its = entry.get("platform") or {}
        return [its.get("os", ""), its.get("architecture", ""), its.get("variant", "")]

    wanted = [*platform.split("/"), ""][:3]
    found = index["manifests"]
    nearest = max(
        found,
        key=lambda entry: [one == other for one, other in zip(names(entry), wanted, strict=True)],
    )
    return str(nearest["digest"])
