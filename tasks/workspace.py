"""Which adapters a build needs, from its message and its worker's setup."""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Literal

from imagemill import config as launch
from imagemill.builders import builder_for, detect
from imagemill.builders.graft import grafting
from imagemill.builders.labels import labels
from imagemill.config import LaunchConfig, Loaded
from imagemill.context import Manifest, hashing
from imagemill.context.handover import Contexts, KeptContexts, Origin, Packed, PackedContexts
from imagemill.context.index import Memory
from imagemill.context.mirrors import Mirrors
from imagemill.dockerfile.generate import Wishes, chosen
from imagemill.errors import OperatorError, UserError
from imagemill.files import folders
from imagemill.messages import Build, BuildRequest
from imagemill.objects import store_for
from imagemill.ports import Builder, BuildInputs, Progress, Quiet, Registry, Source, StoredContext
from imagemill.reference import ImageReference
from imagemill.registries import blobs_for, registry_for
from imagemill.registries.blobs import Blobs
from imagemill.registries.docker_config import DockerConfig
from imagemill.sources import open_source, origin, unversioned
from imagemill.sources.cache import SourceCache
from imagemill.state.grafts import Grafts
from imagemill.state.input_records import InputRecords
from imagemill.state.lock import ImageLock
from imagemill.state.source_hashes import KnownHashes
from imagemill.why import record as recording
from imagemill.why.record import InputRecord
from tasks.settings import Setup, journal


def launch_config(setup: Setup, request: BuildRequest) -> Loaded:
    """The config that holds for the request, with the type of its builder decided."""
    path = launch.find(
        explicit=None,
        name=request.config,
        folder=setup.config_dir,
        environment_file=setup.config,
        home=setup.home,
    )
    loaded = _loaded(path, path.stat().st_mtime_ns) if path else Loaded(LaunchConfig())
    if loaded.config.builder.type != "auto":
        return loaded
    return replace(loaded, config=loaded.config.with_builder(_detected(setup)))


@lru_cache(maxsize=64)
def _loaded(path: Path, changed: int) -> Loaded:
    """A config file is read again only when it has changed."""
    return launch.load(path)


_ENGINE_TRUSTED_SECONDS = 60.0
_engine_seen: dict[str | None, float] = {}


def _detected(setup: Setup) -> Literal["docker", "noop"]:
    """What builds where the config does not say; an engine that was there a moment ago is not
    looked for again.
    """
    if (
        time.monotonic() - _engine_seen.get(setup.docker_host, -_ENGINE_TRUSTED_SECONDS)
        < _ENGINE_TRUSTED_SECONDS
    ):
        return "docker"
    found = detect(
        setup.docker_cli, setup.docker_host, DockerConfig(setup.docker_config), setup.environment
    )
    if found == "docker":
        _engine_seen[setup.docker_host] = time.monotonic()
    return found


def destination(build: Build) -> ImageReference:
    """The repository to push to: the request's, else the config's."""
    assert build.config is not None
    text = build.request.destination or build.config.builder.destination
    if text is None:
        raise UserError(
            "It is not said where the image is to be pushed",
            "give a destination, REGISTRY/REPOSITORY, or set builder.destination in the launch config",
        )
    return ImageReference.parse_destination(text)


def source(setup: Setup, build: Build) -> Source:
    """Where the code comes from: once it is known, the very commit or archive that the source
    was.
    """
    return open_source(
        build.source or build.request.source, replace(setup.sources, scratch=scratch_folder(setup))
    )


@contextmanager
def fetched(setup: Setup, build: Build, progress: Progress) -> Iterator[Path]:
    """The source's top folder on this node, to be read only; what cannot change is kept for those
    who want it next.
    """
    wanted = source(setup, build)
    if build.source is None:
        with scratch(setup) as folder:
            yield wanted.fetch(folder, progress)
        return
    cache = SourceCache(setup.state_dir / "sources", setup.source_cache_bytes)
    with cache.tree(build.source, lambda folder: wanted.fetch(folder, progress), progress) as tree:
        yield tree


def dockerfile(build: Build) -> str | Wishes:
    """The path of the Dockerfile, or how it is to be generated if the source has none."""
    assert build.config is not None
    return chosen(build.request, build.config.builder)


def source_hash(build: Build, manifest: Manifest) -> str:
    """The hash over the manifest and all other inputs of the image."""
    assert build.config is not None
    return hashing.source_hash(build.request, build.config.builder, manifest)


def hash_key(build: Build, pinned: str) -> str:
    """What the hash of a source that cannot change is known by."""
    assert build.config is not None
    return hashing.cache_key(build.request, build.config.builder, pinned)


def input_record(build: Build, manifest: Manifest) -> InputRecord:
    """What `imagemill why` is to know of the image."""
    assert build.config is not None
    return recording.record(build.request, build.config.builder, manifest)


def input_records(setup: Setup) -> InputRecords:
    """What is known of the images of all builds."""
    return InputRecords(journal().redis, setup.key_prefix)


def forget_hash(setup: Setup, build: Build) -> None:
    """Have a source hashed anew the next time, where its hash was known and is another one now."""
    if build.source is not None:
        known_hashes(setup).forget(hash_key(build, build.source))


def known_hashes(setup: Setup) -> KnownHashes:
    """Hashes that any worker has found before."""
    return KnownHashes(journal().redis, setup.key_prefix)


def registry(setup: Setup, image: ImageReference) -> Registry:
    """The registry that the image lies in."""
    return registry_for(
        image, docker_config=DockerConfig(setup.docker_config), insecure=setup.insecure_registries
    )


def graft_place(setup: Setup) -> grafting.Place:
    """Where images of code alone are looked for and made."""

    def blobs(image: ImageReference) -> Blobs:
        return blobs_for(
            image.registry, DockerConfig(setup.docker_config), setup.insecure_registries
        )

    known = Grafts(journal().redis, setup.key_prefix)
    return grafting.Place(blobs, known, scratch_folder(setup))


def contexts(setup: Setup, build: Build) -> Contexts:
    """Where contexts are kept: in the config's store, else in a folder of this worker."""
    assert build.config is not None
    uri = build.config.builder.build_context_store
    if uri is None:
        return KeptContexts(mirrors(setup), setup.state_dir)
    return PackedContexts(store_for(uri, region=build.config.environment.region))


def mirrors(setup: Setup) -> Mirrors:
    """The context folders of this node."""
    return Mirrors(setup.kept / "contexts", setup.context_cache_bytes)


def memory(setup: Setup, root: Path) -> Memory | None:
    """What is known of the files of a source; None where they are somewhere else each time."""
    return None if root.is_relative_to(scratch_folder(setup)) else Memory(indexes(setup), root)


def indexes(setup: Setup) -> Path:
    """Folder of what is known of the files of sources."""
    return setup.kept / "indexes"


def origin_of(setup: Setup, build: Build, progress: Progress) -> Origin:
    """Where the context of a build comes from."""
    assert build.source_hash is not None
    return Origin(
        name=json.dumps([unversioned(build.request.source), build.request.dockerfile]),
        source_hash=build.source_hash,
        build=build.id,
        dockerfile=dockerfile(build),
        fetched=lambda: fetched(setup, build, progress),
        memory=lambda root: memory(setup, root),
    )


def context_is_there(setup: Setup, build: Build) -> bool:
    """Whether the context is where it is kept; true where the builder needs none."""
    return build.context is None or contexts(setup, build).exists(build.context)


def stored_context(setup: Setup, build: Build) -> StoredContext:
    """The context for the builder; empty where the builder needs none."""
    return (
        Packed(BytesIO) if build.context is None else contexts(setup, build).stored(build.context)
    )


def builder(setup: Setup, build: Build) -> Builder:
    """What the config builds with."""
    assert build.config is not None
    return builder_for(
        build.config.builder,
        docker_cli=setup.docker_cli,
        docker_host=setup.docker_host,
        docker_config=DockerConfig(setup.docker_config),
        scratch=scratch_folder(setup),
        insecure_registries=setup.insecure_registries,
        environment=setup.environment,
        cloud=build.config.environment,
    )


def builder_type(build: Build) -> str:
    """`docker`, `kaniko` or `noop`: also the name of the worker pool."""
    assert build.config is not None
    return build.config.builder.type


def inputs(setup: Setup, build: Build) -> BuildInputs:
    """What the builder is told."""
    secrets = {name: _secret(setup, name) for name in build.request.secrets}
    return replace(open_inputs(build), secrets=secrets)


def open_inputs(build: Build) -> BuildInputs:
    """What the builder is told, but for the secrets, which are on its own workers."""
    assert build.image is not None
    assert build.source_hash is not None
    assert build.config is not None
    request = build.request
    revision, url = origin(build.source or "")
    return BuildInputs(
        image=ImageReference.parse(build.image),
        target=request.target,
        platform=hashing.platform(request, build.config.builder),
        build_args=request.build_args,
        labels=labels(
            build.source_hash,
            request.revision or revision,
            request.source_url or url,
            request.labels,
        ),
        source_hash=build.source_hash,
        build_id=build.id,
    )


def lock(setup: Setup, build: Build) -> ImageLock:
    """The lock on the build's image, as this build sees it."""
    assert build.image is not None
    return ImageLock(journal().redis, setup.key_prefix, build.image, build.id, setup.lock_lease)


def scratch_folder(setup: Setup) -> Path:
    """Where this worker unpacks; made when it is first needed."""
    folder = setup.state_dir / "scratch"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextmanager
def scratch(setup: Setup) -> Iterator[Path]:
    """The path of a folder that whoever needs it makes; it is removed at the end."""
    folder = scratch_folder(setup) / uuid.uuid4().hex
    try:
        yield folder
    finally:
        folders.remove(folder, Quiet())


def _secret(setup: Setup, name: str) -> Path:
    """The worker's file that holds a build secret."""
    if setup.build_secrets_dir is None:
        raise OperatorError(
            f"The build asks for the secret {name}, but the worker has no folder of build secrets",
            "set IMAGEMILL_BUILD_SECRETS_DIR on the workers",
        )
    path = setup.build_secrets_dir / name
    if not path.is_file():
        raise OperatorError(
            f"The worker has no build secret {name}",
            f"put its value into a file {name} in {setup.build_secrets_dir}",
        )
    return path
