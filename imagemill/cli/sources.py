"""Sources as they are read here, by whoever sits at the terminal: what that person may read, a
command may.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from imagemill import context
from imagemill.cli.docker_habits import dockerfile
from imagemill.cli.git_info import GitInfo, checkout
from imagemill.cli.requests import checked, located
from imagemill.cli.terminal import AMOUNT_SECONDS
from imagemill.config.model import Builder
from imagemill.context import Manifest, hashing
from imagemill.context.index import INDEXES, Memory
from imagemill.dockerfile.generate import chosen
from imagemill.environment import cache_folder, everything, git_config
from imagemill.errors import TransientError, UserError
from imagemill.messages import BuildRequest
from imagemill.place import attended
from imagemill.ports import Quiet
from imagemill.sources import open_source, origin
from imagemill.sources.options import SourceOptions


def labels_of(found: "Hashed") -> dict[str, str]:
    """Return the labels that the image of a source gets."""
    from imagemill.builders.labels import labels  # which brings the registries' clients along

    place = Path(found.request.source)
    known = checkout(place) if place.is_dir() else GitInfo(*origin(pinned(found.request.source)))
    return labels(found.source_hash, known.revision, known.url, found.request.labels)


@contextmanager
def fetched(source: str, wanted: str = "files") -> Iterator[Path]:
    """Fetch a source; its top folder is there for as long as the block lasts; `UserError` if it is
    an image.

    `wanted` says in that error what an image has none of.
    """
    with attended(), tempfile.TemporaryDirectory(prefix="imagemill-") as folder:
        opened = open_source(located(source), options(Path(folder)))
        if opened.image is not None:
            raise UserError(
                f"{source} is an image, which has no {wanted}",
                "give a folder, an archive or a repository",
            )
        yield opened.fetch(Path(folder) / "source", Quiet())


def pinned(source: str) -> str:
    """Return the source, named so that it cannot become another one, where that can be."""
    with attended(), tempfile.TemporaryDirectory(prefix="imagemill-") as folder:
        return open_source(source, options(Path(folder))).pinned(Quiet()) or source


class Hashed(NamedTuple):
    """A source that was read and hashed here, as a worker would."""

    request: BuildRequest
    manifest: Manifest
    source_hash: str
    bases: Mapping[str, str]
    """Base image → the digest that it has at this time."""


def hashed(
    source: str,
    builder: Builder,
    *,
    secrets: Iterable[str] = (),
    ssh: Iterable[str] = (),
    offline: bool = False,
    **fields: Any,
) -> Hashed:
    """Hash a source with these fields of a request; `secrets` and `ssh` are ids.

    `offline` says that base images count by their names where their registries do not answer.
    """
    place = located(source)
    fields["dockerfile"], fields["dockerfile_text"] = dockerfile(fields["dockerfile"], place)
    request = checked(source=place, secrets=tuple(secrets), ssh=tuple(ssh), **fields)
    with fetched(source, "source hash") as folder:
        memory = _memory(source, folder)
        manifest = context.manifest(folder, chosen(request, builder), Quiet(), memory)
    found = _base_digests(request, builder, manifest, offline=offline)
    own_hash = hashing.source_hash(request, builder, manifest)
    return Hashed(request, manifest, hashing.with_bases(own_hash, found), found)


def _memory(source: str, folder: Path) -> Memory | None:
    """Return what is known of the files of a folder that is read where it is."""
    in_place = Path(source).is_dir() and folder.samefile(source)
    return Memory(cache_folder() / INDEXES, folder) if in_place else None


def _base_digests(
    request: BuildRequest, builder: Builder, manifest: Manifest, *, offline: bool
) -> Mapping[str, str]:
    images = hashing.base_images(request, manifest) if builder.base_digests is not False else ()
    if not images:
        return {}
    from imagemill.base_digests import digests
    from imagemill.cli import terminal
    from imagemill.registries import registry_for
    from imagemill.registries.docker_config import DockerConfig
    from imagemill.settings import NodeSettings, read

    settings = read(NodeSettings, everything())
    config, insecure = DockerConfig(settings.docker_config), settings.insecure_registries
    try:
        return digests(
            images,
            lambda image: registry_for(image, docker_config=config, insecure=insecure),
            None,
            Saying(terminal.say),
        )
    except TransientError:
        if not offline:
            raise
        return {}


def tell(manifest: Manifest) -> None:
    """Tell whoever builds a source what is to be known of it, as a build does."""
    from imagemill.cli import terminal

    for note in context.notes(manifest):
        terminal.say(note)
    for warning in context.costs(manifest):
        terminal.warn(warning)


class Saying(Quiet):
    """Shows what happens."""

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._say, self._clock = say, clock
        self._told = clock()

    def log(self, line: str) -> None:
        self._say(line)

    def warn(self, line: str) -> None:
        self._say(f"Warning: {line}")

    def amount(self, text: str) -> None:
        if self._clock() - self._told >= AMOUNT_SECONDS:
            self._told = self._clock()
            self._say(text)


def options(scratch: Path) -> SourceOptions:
    """Return what a person's own variables and git config say."""
    return SourceOptions.from_environment(
        everything() | git_config(), roots=(Path("/"),), scratch=scratch, attended=True
    )
