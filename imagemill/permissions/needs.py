"""What a build does, and to what: the same for every cloud, and all that a policy has to allow.

With Kaniko there are two parties: the worker, and the build pod, which may well be somebody else to
the cloud.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from imagemill.builders.kaniko.overlay import executor
from imagemill.builders.kaniko.pod_credentials import needs_docker_secret
from imagemill.clouds.ecr import repository_arn
from imagemill.config import Builder, KanikoBuilder, LaunchConfig, NoopBuilder
from imagemill.errors import UserError
from imagemill.reference import ImageReference


class Party(StrEnum):
    """Whoever has to be allowed something."""

    WORKER = "worker"
    BUILD_POD = "build-pod"
    PUSH_ROLE = "push-role"
    """The role that the worker assumes for a build pod's push."""


class Use(StrEnum):
    """What is done; a policy names its parts after it."""

    KEEP_CONTEXTS = "keep contexts"
    READ_CONTEXTS = "read contexts"
    FIND_IMAGES = "find images"
    MAKE_REPOSITORY = "make repository"
    PUSH_IMAGES = "push images"
    ADD_TAGS = "add tags"
    GRAFT = "graft"
    CACHE_LAYERS = "cache layers"
    ASSUME_ROLE = "assume role"
    RUN_JOBS = "run jobs"
    READ_EVENTS = "read events"


_NOT_OF_IMAGES = (
    Use.KEEP_CONTEXTS,
    Use.READ_CONTEXTS,
    Use.ASSUME_ROLE,
    Use.RUN_JOBS,
    Use.READ_EVENTS,
)

OPTIONAL = {
    Use.ADD_TAGS: "for builds that ask for further tags (--tag)",
    Use.GRAFT: "for changes of code without a builder (builder.graft)",
    Use.CACHE_LAYERS: "for a cache of layers (builder.layer-cache, Kaniko's --cache)",
    Use.READ_EVENTS: "for saying why a pod does not start",
}
"""The uses that builds can do without, and what each is for: policies keep apart, and mark, what
only they need.
"""


@dataclass(frozen=True)
class Need:
    """That a party does something to a context store or an image repository."""

    party: Party
    use: Use
    where: str = ""
    """The store's URI, the repository with its registry, or the role; empty for the cluster."""

    @property
    def repository(self) -> ImageReference | None:
        """The image repository, if it is about one."""
        return None if self.use in _NOT_OF_IMAGES else ImageReference.parse_destination(self.where)


def needs(config: LaunchConfig) -> tuple[Need, ...]:
    """All that builds with this config do, in the order in which they do it."""
    return tuple(_needs(config))


def _needs(config: LaunchConfig) -> Iterator[Need]:
    builder = config.builder
    kaniko = builder if isinstance(builder, KanikoBuilder) else None
    if builder.build_context_store and not isinstance(builder, NoopBuilder):
        yield Need(Party.WORKER, Use.KEEP_CONTEXTS, builder.build_context_store)
        if kaniko and not kaniko.is_signed:
            yield Need(Party.BUILD_POD, Use.READ_CONTEXTS, builder.build_context_store)
    if builder.destination:
        yield Need(Party.WORKER, Use.FIND_IMAGES, builder.destination)
        if not isinstance(builder, NoopBuilder):
            yield from _of_images_made(config, builder.destination)
        yield Need(Party.WORKER, Use.ADD_TAGS, builder.destination)
    if kaniko:
        yield Need(Party.WORKER, Use.RUN_JOBS)
        yield Need(Party.WORKER, Use.READ_EVENTS)


def _of_images_made(config: LaunchConfig, destination: str) -> Iterator[Need]:
    builder, pushing = config.builder, [pushing_party(config)]
    yield Need(Party.WORKER, Use.MAKE_REPOSITORY, destination)
    if isinstance(builder, KanikoBuilder) and builder.push_role and takes_push_role(config):
        yield Need(Party.WORKER, Use.ASSUME_ROLE, builder.push_role)
        pushing.append(Party.PUSH_ROLE)
    caches = _caches(builder)
    for party in pushing:
        yield Need(party, Use.PUSH_IMAGES, destination)
        yield from (Need(party, Use.CACHE_LAYERS, cache) for cache in caches)
    for cache in caches:
        if is_made(cache, builder):
            yield Need(Party.WORKER, Use.MAKE_REPOSITORY, cache)
    if builder.graft is not False:
        yield Need(Party.WORKER, Use.GRAFT, destination)


def pushing_party(config: LaunchConfig) -> Party:
    """Whose credentials images are pushed with: a build pod that has none of its own is given the
    worker's.
    """
    builder = config.builder
    if not isinstance(builder, KanikoBuilder):
        return Party.WORKER
    image = ImageReference.parse_destination(builder.destination)
    return (
        Party.WORKER if needs_docker_secret(builder, config.environment, image) else Party.BUILD_POD
    )


def takes_push_role(config: LaunchConfig) -> bool:
    """Return whether build pods push to ECR with a session of a role that the worker assumes."""
    builder = config.builder
    return (
        isinstance(builder, KanikoBuilder)
        and builder.push_role is not None
        and pushing_party(config) is Party.WORKER
        and repository_arn(ImageReference.parse_destination(builder.destination)) is not None
    )


def is_made(cache: str, builder: Builder) -> bool:
    """Return whether workers make the repository of cached layers: one that is named in the config
    itself, and in the registry that they know as the destination's.
    """
    return (
        cache == builder.layer_cache
        and builder.destination is not None
        and ImageReference.parse_destination(cache).registry
        == ImageReference.parse_destination(builder.destination).registry
    )


def _caches(builder: Builder) -> tuple[str, ...]:
    """Return where layers are kept."""
    kaniko = _kaniko_cache(builder) if isinstance(builder, KanikoBuilder) else None
    return tuple(dict.fromkeys(filter(None, (builder.layer_cache, kaniko))))


def _kaniko_cache(builder: KanikoBuilder) -> str | None:
    """Where the config has Kaniko keep layers: `--cache-repo`, else `<destination>/cache`; None
    without `--cache`.

    https://github.com/osscontainertools/kaniko#flag---cache-repo
    """
    arguments = executor(builder.kaniko_config).get("args") or ()
    flags = {flag: value for flag, _, value in (text.partition("=") for text in arguments)}
    # What Go's strconv.ParseBool takes for true; a flag that is given twice has its last value.
    if flags.get("--cache", "false") not in ("", "1", "t", "T", "true", "TRUE", "True"):
        return None
    try:
        return str(
            ImageReference.parse_destination(
                flags.get("--cache-repo") or f"{builder.destination}/cache"
            )
        )
    except UserError:  # a folder (oci:PATH), which no policy is about
        return None
