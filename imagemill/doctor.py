"""Looks at everything that a build needs, before there is one: what is there, what is not, and what to do about it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from imagemill.adapters import load
from imagemill.builders import ADAPTERS
from imagemill.builders import docker_cli as docker
from imagemill.client import QUEUE, Client
from imagemill.config import LaunchConfig, Loaded
from imagemill.embedded import valkey_program, worker_code
from imagemill.errors import ImagemillError, UserError
from imagemill.reference import ImageReference
from imagemill.registries import registry_for
from imagemill.registries.docker_config import DockerConfig


class Verdict(StrEnum):
    """What a finding means for builds."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """What one check has found."""

    check: str
    verdict: Verdict
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Place:
    """What is to be looked at: this machine, and the service, if there is one."""

    config: Callable[[], Loaded]
    destination: str | None
    docker_cli: Path | None
    docker_host: str | None
    docker_config: DockerConfig
    insecure_registries: frozenset[str]
    client: Client | None
    environment: Mapping[str, str] = field(repr=False)


def examine(place: Place) -> Iterator[Finding]:
    """All findings, each as soon as it is made."""
    config = LaunchConfig()
    try:
        loaded = place.config()
        config = loaded.config
        yield from _config(loaded)
    except ImagemillError as error:
        yield _failure("config", error)
    # With a service, it is its workers that build; this machine is looked at too, since workers may run on it.
    lacking = Verdict.WARNING if place.client else Verdict.FAILED
    yield from _builder(place, config.builder.type, lacking)
    yield from _destination(place, place.destination or config.builder.destination)
    if place.client:
        yield from _service(place.client, config.builder.type)
    else:
        yield _checked("embedded service", _embedded)


def _config(loaded: Loaded) -> Iterator[Finding]:
    where = str(loaded.path) if loaded.path else "no file was found, so all is left to the defaults"
    yield Finding("config", Verdict.OK, f"{where}; builder: {loaded.config.builder.type}")
    for warning in loaded.warnings:
        yield Finding("config", Verdict.WARNING, warning)


def _builder(place: Place, builder: str, lacking: Verdict) -> Iterator[Finding]:
    if builder not in ("auto", "docker"):
        yield _checked("builder", lambda: _adapter(builder), lacking)
        return
    try:
        path = docker.path_of(place.environment)
        cli = docker.choose(place.docker_cli, path, place.docker_config.folder)
    except ImagemillError as error:
        yield _failure("docker", error, lacking)
        return
    if cli is None:
        yield _failure("docker", docker.no_cli("There is no docker command on PATH"), lacking)
        return
    yield _cli(cli)
    yield _checked("engine", lambda: _engine(place, cli), lacking)


def _adapter(builder: str) -> Finding:
    load(ADAPTERS, builder, "builder")
    return Finding("builder", Verdict.OK, f"{builder} can be used")


def _cli(cli: docker.Cli) -> Finding:
    if cli.buildkit:
        return Finding("docker", Verdict.OK, f"{cli.path}, with BuildKit")
    return Finding(
        "docker",
        Verdict.WARNING,
        f"{cli.path} has no BuildKit: builds are slower, and know no secrets and cache mounts",
        "install its buildx plugin (docker-buildx-plugin)",
    )


def _engine(place: Place, cli: docker.Cli) -> Finding:
    folder = place.docker_config.folder
    endpoint = docker.find_endpoint(cli.path, place.docker_host, place.environment, folder)
    if docker.reaches_engine(cli.path, place.docker_host, place.environment, folder):
        return Finding("engine", Verdict.OK, f"answers at {endpoint.host}")
    return Finding(
        "engine", Verdict.FAILED, f"no Docker engine answers at {endpoint.host}", "start it, or set DOCKER_HOST"
    )


def _destination(place: Place, destination: str | None) -> Iterator[Finding]:
    if destination is None:
        yield Finding(
            "registry",
            Verdict.WARNING,
            "the config names no destination, so every build has to",
            "set builder.destination, or give --destination REGISTRY/REPOSITORY",
        )
        return
    yield _checked("registry", lambda: _registry(place, destination))
    yield _checked("credentials", lambda: _credentials(place, destination))


def _registry(place: Place, destination: str) -> Finding:
    repository = ImageReference.parse_destination(destination)
    registry_for(repository, docker_config=place.docker_config, insecure=place.insecure_registries).digest(repository)
    return Finding("registry", Verdict.OK, f"{repository.registry} answers for {repository.path}")


def _credentials(place: Place, destination: str) -> Finding:
    repository = ImageReference.parse_destination(destination)
    registry = registry_for(repository, docker_config=place.docker_config, insecure=place.insecure_registries)
    if registry.credentials(repository):
        return Finding("credentials", Verdict.OK, f"there are some for {repository.registry}")
    return Finding(
        "credentials",
        Verdict.WARNING,
        f"there are none for {repository.registry}, so pushes are anonymous",
        f"if the registry wants a login: docker login {repository.registry}",
    )


def _service(client: Client, builder: str) -> Iterator[Finding]:
    yield _checked("backend", lambda: _backend(client))
    try:
        workers = client.workers()
    except ImagemillError as error:
        yield _failure("broker", error)
        return
    yield Finding("broker", Verdict.OK, "answers")
    yield _queue(workers, QUEUE)
    if builder == "auto":
        # What builds is up to the workers' config: one pool for builds is enough.
        queues = {queue for served in workers.values() for queue in served if queue.startswith(f"{QUEUE}.")}
        for queue in sorted(queues) or [f"{QUEUE}.docker"]:
            yield _queue(workers, queue)
    else:
        yield _queue(workers, f"{QUEUE}.{builder}")


def _backend(client: Client) -> Finding:
    with suppress(UserError):  # no such build: that is an answer
        client.status("doctor")
    return Finding("backend", Verdict.OK, "answers")


def _queue(workers: Mapping[str, list[str]], queue: str) -> Finding:
    serving = sorted(worker for worker, queues in workers.items() if queue in queues)
    if serving:
        return Finding(f"queue {queue}", Verdict.OK, f"served by {', '.join(serving)}")
    return Finding(
        f"queue {queue}",
        Verdict.FAILED,
        "no worker answers that serves it, so builds wait",
        f"start one: celery -A worker.app worker -Q {queue}",
    )


def _embedded() -> Finding:
    valkey_program()
    worker_code()
    return Finding("embedded service", Verdict.OK, "can be started, since no broker is configured")


def _checked(check: str, find: Callable[[], Finding], lacking: Verdict = Verdict.FAILED) -> Finding:
    """What the check finds; an error is a finding too."""
    try:
        return find()
    except ImagemillError as error:
        return _failure(check, error, lacking)


def _failure(check: str, error: ImagemillError, verdict: Verdict = Verdict.FAILED) -> Finding:
    return Finding(check, verdict, error.message, error.hint)
