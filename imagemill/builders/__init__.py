"""Builders: what turns a packed context into an image in a registry.

An adapter is a class made from the worker's `Workplace` and the `builder` section of the launch
config. To add one, write its module and a line here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

from imagemill.adapters import Adapter, load
from imagemill.builders.docker import cli as cli
from imagemill.config.model import Environment, LocalEnvironment
from imagemill.errors import UserError
from imagemill.messages import BuildRequest
from imagemill.ports import Builder
from imagemill.registries.docker_config import DockerConfig

ADAPTERS: Mapping[str, Adapter] = MappingProxyType(
    {
        "docker": Adapter("imagemill.builders.docker.builder", "DockerCommandBuilder"),
        "kaniko": Adapter("imagemill.builders.kaniko.builder", "KanikoJobBuilder", "kaniko"),
        "noop": Adapter("imagemill.builders.noop", "RefusingBuilder"),
    }
)


class BuilderSection(Protocol):
    """What is read here of a config's `builder` section."""

    @property
    def type(self) -> str:
        """The adapter's name."""


@dataclass(frozen=True)
class Workplace:
    """What a worker has for its builders."""

    scratch: Path
    """A folder for contexts while they are built, with room for them."""
    docker_config: DockerConfig
    docker_cli: Path | None = None
    """The docker command; None: the best one on the environment's PATH."""
    docker_host: str | None = None
    """The engine; None: that of the current context of the docker command."""
    insecure_registries: frozenset[str] = frozenset()
    """Hosts of registries that speak plain HTTP."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What docker and its credential helpers may see of the worker's environment: PATH, HOME, a
    cloud's variables.
    """
    cloud: Environment = field(default_factory=LocalEnvironment)
    """The cloud that the launch config names."""


def builder_for(
    section: BuilderSection,
    *,
    scratch: Path,
    docker_config: DockerConfig,
    docker_cli: Path | None = None,
    docker_host: str | None = None,
    insecure_registries: frozenset[str] = frozenset(),
    environment: Mapping[str, str] | None = None,
    cloud: Environment | None = None,
) -> Builder:
    """Return the builder that the config's `builder` section names, at this worker; see `Workplace`
    for the parameters.
    """
    place = Workplace(
        scratch,
        docker_config,
        docker_cli,
        docker_host,
        insecure_registries,
        environment or {},
        cloud or LocalEnvironment(),
    )
    builder: Builder = load(ADAPTERS, section.type, "builder")(place, section)
    return builder


_NOT_BY_KANIKO = {
    "ssh": "write git+https:// for dependencies, and give the token as a build secret",
    "cache_from": "builder.layer-cache in the launch config keeps layers for all builds",
    "cache_to": "builder.layer-cache in the launch config keeps layers for all builds",
}
"""Field of a request that Kaniko has nothing for → what to do instead."""


def check_builder(request: BuildRequest, builder: str) -> None:
    """Raise `UserError` if the request asks for what this type of builder cannot give."""
    for asked, instead in _NOT_BY_KANIKO.items() if builder == "kaniko" else ():
        if getattr(request, asked):
            raise UserError(f"Kaniko has no {asked.replace('_', '-')}", instead).about(asked)


def detect(
    docker_cli: Path | None,
    docker_host: str | None,
    docker_config: DockerConfig | None = None,
    environment: Mapping[str, str] | None = None,
) -> Literal["docker", "noop"]:
    """Return the builder where the config names none: `docker` where a docker CLI reaches an
    engine, else `noop`.

    It is an error, and no `noop`, if an engine that was named in `docker_host` does not answer.
    """
    config = docker_config or DockerConfig(Path.home() / ".docker")
    found = cli.choose(docker_cli, cli.path_of(environment or {}), config.folder)
    if found is None:
        return "noop"
    return (
        "docker"
        if cli.reaches_engine(found.path, docker_host, environment or {}, config.folder)
        else "noop"
    )
