"""What a step works with: its build, and the adapters that it needs on this worker."""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypeVar

from imagemill import config as launch
from imagemill.base_digests import digests
from imagemill.builders import BuilderSection, builder_for, detect
from imagemill.builders.graft import grafting
from imagemill.builders.labels import labels
from imagemill.config import LaunchConfig, Loaded
from imagemill.config.model import Environment
from imagemill.config.policy import Policy
from imagemill.context import Given, Manifest, hashing
from imagemill.context.handover import Contexts, KeptContexts, Origin, Packed, PackedContexts
from imagemill.context.index import AHEAD, INDEXES, Memory
from imagemill.context.mirrors import Mirrors
from imagemill.dockerfile.generate import Wishes, chosen
from imagemill.errors import OperatorError, UserError
from imagemill.files.scratch import scratch
from imagemill.messages import Build, BuildRequest, ChosenConfig
from imagemill.objects import store_for
from imagemill.place import is_attended, machine
from imagemill.policy import Permit
from imagemill.ports import Builder, BuildInputs, Progress, Registry, Source, StoredContext
from imagemill.reference import ImageReference
from imagemill.registries import blobs_for, registry_for
from imagemill.registries.blobs import Blobs
from imagemill.registries.docker_config import DockerConfig
from imagemill.sources import open_source, origin, unversioned
from imagemill.sources.cache import SourceCache
from imagemill.state.grafts import FolderShelf, Grafts, RedisShelf
from imagemill.state.input_records import InputRecords
from imagemill.state.lock import DependencyLock, ImageLock
from imagemill.state.quotas import Quotas
from imagemill.state.source_hashes import BaseDigests, KnownHashes
from imagemill.why import record as recording
from imagemill.why.record import InputRecord
from tasks.settings import ConfigChangedError, Setup, journal
from tasks.signals import cache_asked

SSH = "ssh"
"""Below the folder of build secrets: the SSH keys, which no build can have as a secret."""

Fact = TypeVar("Fact")


class Workspace:
    """What a step works with: the settings of its worker, its build, and the adapters that the two
    call for.

    A fact that no step has found yet must not be asked for; what `knowing` gives knows more.
    """

    def __init__(self, setup: Setup, build: Build) -> None:
        self.setup = setup
        self.build = build

    def knowing(self, **facts: Any) -> "Workspace":
        """Return the workspace of the build once it knows these facts, too."""
        return Workspace(self.setup, self.build.knowing(**facts))

    def for_platform(self, platform: str) -> "Workspace":
        """Return the workspace of the same build for one platform alone."""
        return self.knowing(request=self.build.request.model_copy(update={"platform": platform}))

    @cached_property
    def config(self) -> LaunchConfig:
        """The launch config that holds for the build, from this worker's files;
        `ConfigChangedError` if it is not the one that the build began with.
        """
        chosen, name = _known(self.build.config), self.build.request.config
        found = launch_config(self.setup, self.build.request, chosen.builder)
        if found.chosen != chosen:
            raise ConfigChangedError(
                f"The launch config {name or 'of the workers'} is {found.chosen.digest[:12]} on"
                f" {machine()}, and the build began with {chosen.digest[:12]}",
                "give all workers the same files (IMAGEMILL_CONFIG, IMAGEMILL_CONFIG_DIR), and submit it again",
            )
        return found.config

    @property
    def source_hash(self) -> str:
        """The hash of all that the image is made of."""
        return _known(self.build.source_hash)

    @cached_property
    def image(self) -> ImageReference:
        """The reference of the image that is being made, or is looked for."""
        return ImageReference.parse(_known(self.build.image))

    @property
    def destination(self) -> ImageReference:
        """The repository to push to: the request's, else the config's."""
        text = self.build.request.destination or self.config.builder.destination
        if text is None:
            raise UserError(
                "It is not said where the image is to be pushed",
                "give a destination, REGISTRY/REPOSITORY, or set builder.destination in the launch config",
            ).about("destination")
        return ImageReference.parse_destination(text)

    @property
    def quotas(self) -> Quotas:
        """How many builds each tenant has."""
        return Quotas(journal().redis, self.setup.key_prefix)

    @cached_property
    def permit(self) -> Permit:
        """What whoever asked for the build may have."""
        policies = policies_for(self.setup, self.build.request)
        return Permit.of(policies, self.build.tenant)

    @property
    def source(self) -> Source:
        """Where the code comes from: once it is known, the very commit or archive that the source
        was.
        """
        permit, most = self.permit, self.setup.sources.max_bytes
        options = replace(
            self.setup.sources,
            scratch=self.scratch_folder,
            check_place=permit.check_source,
            max_bytes=min(permit.least("max_source_bytes") or most, most),
        )
        return open_source(self.build.source or self.build.request.source, options)

    @contextmanager
    def fetched(self, progress: Progress) -> Iterator[Path]:
        """Yield the source's top folder on this node, to be read only; what cannot change is kept
        for those who want it next.
        """
        wanted = self.source
        if self.build.source is None:
            with scratch(self.scratch_folder) as folder:
                yield wanted.fetch(folder, progress)
            return
        cache = SourceCache(self.setup.state_dir / "sources", self.setup.source_cache_bytes)
        brought: list[Path] = []

        def bring(folder: Path) -> Path:
            brought.append(folder)
            return wanted.fetch(folder, progress)

        # What else belongs to a source, such as submodules, is not allowed to everybody.
        key = " ".join(filter(None, (self.build.source, self.permit.of_sources)))
        with cache.tree(key, bring, progress) as tree:
            cache_asked.send(sender=None, cache="source", hit=not brought)
            yield tree

    @property
    def dockerfile(self) -> str | Given | Wishes:
        """The path of the Dockerfile, or how it is to be generated if the source has none."""
        return chosen(self.build.request, self.config.builder)

    def hash_of(self, manifest: Manifest) -> str:
        """Return the hash over the manifest and all other inputs of the image: of base images, what
        they were when the build was hashed.
        """
        return hashing.with_bases(self.own_hash_of(manifest), self.build.bases)

    def is_as_hashed(self, manifest: Manifest) -> bool:
        """Whether the source of the manifest is the one that was hashed."""
        return self.hash_of(manifest) == self.source_hash

    def own_hash_of(self, manifest: Manifest) -> str:
        """Return the same without the base images."""
        return hashing.source_hash(self.build.request, self.config.builder, manifest)

    def base_digests(self, images: Iterable[str], progress: Progress) -> dict[str, str]:
        """Return what the base images are at this time; nothing if their names alone count."""
        if self.config.builder.base_digests is False:
            return {}
        known = self.known_bases if self.setup.base_digest_seconds else None
        anew = self.build.request.pull
        return dict(digests(images, self._registry_of, known, progress, anew=anew))

    @property
    def known_bases(self) -> BaseDigests:
        """Base images that were asked for a moment ago."""
        setup = self.setup
        return BaseDigests(journal().redis, setup.key_prefix, setup.base_digest_seconds)

    def _registry_of(self, image: ImageReference) -> Registry:
        return registry_for(
            image,
            docker_config=DockerConfig(self.setup.docker_config),
            insecure=self.setup.insecure_registries,
        )

    def hash_key(self, pinned: str) -> str:
        """Return what the hash of a source that cannot change is known by."""
        return hashing.cache_key(self.build.request, self.config.builder, pinned)

    def input_record(self, manifest: Manifest) -> InputRecord:
        """Return what `imagemill why` is to know of the image."""
        return recording.record(self.build.request, self.config.builder, manifest, self.build.bases)

    @property
    def input_records(self) -> InputRecords:
        """What is known of the images of all builds."""
        return InputRecords(journal().redis, self.setup.key_prefix)

    @property
    def known_hashes(self) -> KnownHashes:
        """Hashes that any worker has found before."""
        return KnownHashes(journal().redis, self.setup.key_prefix)

    def forget_hash(self) -> None:
        """Have a source hashed anew the next time, where its hash was known and is another now."""
        if self.build.source is not None:
            self.known_hashes.forget(self.hash_key(self.build.source))

    @property
    def registry(self) -> Registry:
        """The registry that the image lies in."""
        return self._registry_of(self.image)

    @property
    def contexts(self) -> Contexts:
        """Where contexts are kept: in the config's store, else in a folder of this worker."""
        uri = self.config.builder.build_context_store
        if uri is None:
            return KeptContexts(mirrors(self.setup), self.setup.state_dir)
        return PackedContexts(store_for(uri, region=self.config.environment.region))

    def memory(self, root: Path) -> Memory | None:
        """Return what is known of the files of a source; None where they are somewhere else each
        time.
        """
        if root.is_relative_to(self.scratch_folder):
            return None
        ahead = self.setup.state_dir / AHEAD if self.setup.attended else None
        return Memory(indexes(self.setup), root, ahead)

    def origin(self, progress: Progress) -> Origin:
        """Return where the context of the build comes from."""
        request = self.build.request
        return Origin(
            name=json.dumps([unversioned(request.source), request.dockerfile]),
            source_hash=self.source_hash,
            build=self.build.id,
            dockerfile=self.dockerfile,
            fetched=lambda: self.fetched(progress),
            memory=self.memory,
        )

    @property
    def context_is_there(self) -> bool:
        """Whether the context is where it is kept; true where the builder needs none."""
        return self.build.context is None or self.contexts.exists(self.build.context)

    @property
    def stored_context(self) -> StoredContext:
        """The context for the builder; empty where the builder needs none."""
        if self.build.context is None:
            return Packed(BytesIO)
        return self.contexts.stored(self.build.context)

    @property
    def builder(self) -> Builder:
        """What the config builds with."""
        return builder(self.setup, self.config.builder, self.config.environment)

    @property
    def builder_type(self) -> str:
        """`docker`, `kaniko` or `noop`: also the name of the worker pool."""
        return self.config.builder.type

    @property
    def inputs(self) -> BuildInputs:
        """What the builder is told."""
        secrets = {name: _secret(self.setup, name) for name in self.build.request.secrets}
        ssh = {name: self._ssh_key(name) for name in self.build.request.ssh}
        return replace(self.open_inputs, secrets=secrets, ssh=ssh)

    def _ssh_key(self, name: str) -> Path | None:
        """Return the worker's file with an SSH key; None if its agent is meant, and may be used."""
        file = self.setup.build_secrets_dir and self.setup.build_secrets_dir / SSH / name
        if file and file.is_file():
            return file
        if name == self.config.builder.ssh_agent or is_attended():
            return None
        raise OperatorError(
            f"{machine().capitalize()} has no SSH key {name}, and its agent is not for builds",
            f"put the private key into a file {SSH}/{name} in IMAGEMILL_BUILD_SECRETS_DIR, or allow"
            " the agent by builder.ssh-agent",
        )

    @property
    def open_inputs(self) -> BuildInputs:
        """What the builder is told, but for the secrets, which are on its own workers."""
        request = self.build.request
        revision, url = origin(self.build.source or "")
        return BuildInputs(
            image=self.image,
            target=request.target,
            platform=hashing.platform(request, self.config.builder),
            build_args=request.build_args,
            labels=labels(
                self.source_hash,
                request.revision or revision,
                request.source_url or url,
                request.labels,
            ),
            source_hash=self.source_hash,
            build_id=self.build.id,
            tenant=self.build.tenant or "",
            pull=request.pull or bool(self.build.bases),
            no_cache=request.no_cache,
            cache_from=request.cache_from,
            cache_to=request.cache_to,
            layer_cache=self._layer_cache,
        )

    @property
    def _layer_cache(self) -> ImageReference | None:
        """Return where the config has the layers of such builds: a tenant's are in a place of its own."""
        request, place = self.build.request, self.config.builder.layer_cache
        if place is None:
            return None
        repository = "/".join(filter(None, (place, self.build.tenant)))
        shared = [
            self.image.repository,
            hashing.platform(request, self.config.builder),
            request.target,
        ]
        tag = hashlib.sha256(json.dumps(shared).encode()).hexdigest()[:32]
        return ImageReference.parse_destination(repository).with_tag(tag)

    @property
    def lock(self) -> ImageLock:
        """The lock on the build's image, as this build sees it."""
        return ImageLock(
            journal().redis,
            self.setup.key_prefix,
            str(self.image),
            self.build.id,
            self.setup.lock_lease,
        )

    def reader_lock(self) -> ImageLock:
        """Return the lock on reading what is in the layers of the build's image, as one reader sees
        it: the next call returns that of another one.
        """
        return ImageLock(
            journal().redis,
            self.setup.key_prefix,
            f"layers:{_known(self.build.graft_key)}",
            uuid.uuid4().hex,
            self.setup.lock_lease,
        )

    @property
    def dependencies(self) -> DependencyLock:
        """The lock on what comes before the build's code, as this build sees it."""
        return self._dependencies(DependencyLock)

    @property
    def dependencies_read(self) -> DependencyLock:
        """The same as it is seen by whoever reads what is in the layers of the build's image."""
        return self._dependencies(DependencyLock.of_reader)

    def _dependencies(self, kind: Callable[..., DependencyLock]) -> DependencyLock:
        key, build = _known(self.build.graft_key), self.build.id
        return kind(journal().redis, self.setup.key_prefix, key, build, self.setup.lock_lease)

    @property
    def scratch_folder(self) -> Path:
        """Where this worker unpacks; made when it is first needed."""
        return scratch_folder(self.setup)


def _known(fact: Fact | None) -> Fact:
    """Return a fact that an earlier step must have found."""
    if fact is None:
        raise AssertionError("a step was run before the one that finds what it needs")
    return fact


def scratch_folder(setup: Setup) -> Path:
    """Return where this worker unpacks; made when it is first needed."""
    folder = setup.state_dir / "scratch"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def builder(setup: Setup, section: BuilderSection, cloud: Environment | None = None) -> Builder:
    """Return the builder of a config's section at this worker."""
    return builder_for(
        section,
        docker_cli=setup.docker_cli,
        docker_host=setup.docker_host,
        docker_config=DockerConfig(setup.docker_config),
        scratch=scratch_folder(setup),
        insecure_registries=setup.insecure_registries,
        environment=setup.environment,
        cloud=cloud,
    )


def mirrors(setup: Setup) -> Mirrors:
    """Return the context folders of this node."""
    return Mirrors(setup.kept / "contexts", setup.context_cache_bytes)


def indexes(setup: Setup) -> Path:
    """Return the folder of what is known of the files of sources."""
    return setup.kept / INDEXES


def graft_place(setup: Setup, tenant: str | None) -> grafting.GraftPlace:
    """Return where images of code alone are looked for and made, of a tenant's."""
    kept = FolderShelf(setup.kept / "grafts")  # the command line's own Redis ends with the build
    known = Grafts(kept if setup.attended else RedisShelf(journal().redis, setup.key_prefix))
    return grafting.GraftPlace(partial(image_blobs, setup), known, scratch_folder(setup), tenant)


def image_blobs(setup: Setup, image: ImageReference) -> Blobs:
    """Return what the registry of the image stores."""
    return blobs_for(image.registry, DockerConfig(setup.docker_config), setup.insecure_registries)


def policies_for(setup: Setup, request: BuildRequest) -> Iterator[Policy | None]:
    """Yield the policies that hold for a request: of the workers' own config and, where it names
    another one, of that besides.
    """
    for name in {None, request.config}:
        path = _config_path(setup, name)
        yield _loaded(path, path.stat().st_mtime_ns).config.policy if path else None


@dataclass(frozen=True)
class Launch:
    """A launch config with the type of its builder decided, how messages name it, and what its
    author should know.
    """

    config: LaunchConfig
    chosen: ChosenConfig
    warnings: tuple[str, ...]


def launch_config(
    setup: Setup, request: BuildRequest, builder: Literal["docker", "kaniko", "noop"] | None = None
) -> Launch:
    """Return the config that holds for the request; `builder` is what was decided where it does not say."""
    path = _config_path(setup, request.config)
    loaded, digest = _digested(path, path.stat().st_mtime_ns if path else 0)
    config = loaded.config
    if config.builder.type == "auto":
        config = config.with_builder(builder or _detected(setup))
    return Launch(config, ChosenConfig(digest=digest, builder=config.builder.type), loaded.warnings)


def _config_path(setup: Setup, name: str | None) -> Path | None:
    return launch.find(
        explicit=None,
        name=name,
        folder=setup.config_dir,
        environment_file=setup.config,
        home=setup.home,
    )


@lru_cache(maxsize=64)
def _digested(path: Path | None, changed: int) -> tuple[Loaded, str]:
    """Return the config, and the digest of what it says but for the policy, which each step reads
    anew.
    """
    loaded = _loaded(path, changed) if path else Loaded(LaunchConfig())
    # What has its default is left out: one that a later version adds changes no digest.
    said = loaded.config.model_dump_json(exclude={"policy"}, exclude_defaults=True)
    return loaded, hashlib.sha256(said.encode()).hexdigest()


@lru_cache(maxsize=64)
def _loaded(path: Path, changed: int) -> Loaded:
    """Return what a config file says; it is read again only when it has changed."""
    return launch.load(path)


_ENGINE_TRUSTED_SECONDS = 60.0
_engine_seen: dict[str | None, float] = {}


def _detected(setup: Setup) -> Literal["docker", "noop"]:
    """Return what builds where the config does not say; an engine that was there a moment ago is
    not looked for again.
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


def _secret(setup: Setup, name: str) -> Path:
    """Return the worker's file that holds a build secret."""
    if setup.build_secrets_dir is None:
        raise OperatorError(
            f"The build asks for the secret {name}, but {machine()} has no folder of build secrets",
            f"set IMAGEMILL_BUILD_SECRETS_DIR on {machine()}",
        )
    path = setup.build_secrets_dir / name
    if not path.is_file():
        raise OperatorError(
            f"{machine().capitalize()} has no build secret {name}",
            f"put its value into a file {name} in {setup.build_secrets_dir}",
        )
    return path
