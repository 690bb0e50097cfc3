"""Whether what the config builds with is there."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from imagemill.adapters import load
from imagemill.builders import ADAPTERS
from imagemill.builders.docker import cli as docker
from imagemill.doctor import cluster
from imagemill.doctor.examination import Case, Machine
from imagemill.doctor.findings import Finding, Verdict, checked, failure
from imagemill.errors import ImagemillError


def examine(case: Case) -> Iterator[Finding]:
    """All findings of the config's builder."""
    for check in CHECKS[case.config.builder.type]:
        yield from check(case)


def _lacking(case: Case) -> Verdict:
    """With a service, it is its workers that build; this machine is looked at too, since workers
    may run on it.
    """
    return Verdict.WARNING if case.machine.client else Verdict.FAILED


def _adapter(case: Case) -> Iterator[Finding]:
    builder = case.config.builder.type

    def find() -> Finding:
        load(ADAPTERS, builder, "builder")
        return Finding("builder", Verdict.OK, f"{builder} can be used")

    yield checked("builder", find, _lacking(case))


def _kaniko(case: Case) -> Iterator[Finding]:
    for finding in _adapter(case):
        yield finding
        if finding.verdict is Verdict.OK:
            yield from cluster.examine(case)


def _docker(case: Case) -> Iterator[Finding]:
    machine, lacking = case.machine, _lacking(case)
    try:
        path = docker.path_of(machine.environment)
        cli = docker.choose(machine.docker_cli, path, machine.docker_config.folder)
    except ImagemillError as error:
        yield failure("docker", error, lacking)
        return
    if cli is None:
        yield failure("docker", docker.no_cli("There is no docker command on PATH"), lacking)
        return
    yield _cli(cli)
    yield checked("engine", lambda: _engine(machine, cli), lacking)


def _cli(cli: docker.Cli) -> Finding:
    if cli.buildkit:
        return Finding("docker", Verdict.OK, f"{cli.path}, with BuildKit")
    return Finding(
        "docker",
        Verdict.WARNING,
        f"{cli.path} has no BuildKit: builds are slower, and know no secrets and cache mounts",
        "install its buildx plugin (docker-buildx-plugin)",
    )


def _engine(machine: Machine, cli: docker.Cli) -> Finding:
    folder = machine.docker_config.folder
    endpoint = docker.find_endpoint(cli.path, machine.docker_host, machine.environment, folder)
    if docker.reaches_engine(cli.path, machine.docker_host, machine.environment, folder):
        return Finding("engine", Verdict.OK, f"answers at {endpoint.host}")
    return Finding(
        "engine",
        Verdict.FAILED,
        f"no Docker engine answers at {endpoint.host}",
        "start it, or set DOCKER_HOST",
    )


CHECKS: Mapping[str, tuple[Callable[[Case], Iterator[Finding]], ...]] = MappingProxyType(
    {"auto": (_docker,), "docker": (_docker,), "kaniko": (_kaniko,), "noop": (_adapter,)}
)
"""Type of builder → what is looked at for it, in this order."""
