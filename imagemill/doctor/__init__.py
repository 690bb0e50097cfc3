"""Looks at everything that a build needs, before there is one: what is there, what is not, and what
to do about it.

findings     what is found
examination  what is looked at
builder      the docker command and its engine, or what else builds
cluster      the cluster that Kaniko builds in
clouds       who we are there, and the context store
registry     the destination: whether it can be asked, and pushed to
service      broker, workers and their queues
"""

from collections.abc import Iterator

from imagemill.config import LaunchConfig, Loaded
from imagemill.doctor import builder, clouds, registry, service
from imagemill.doctor.examination import Case, Machine
from imagemill.doctor.findings import Finding, Verdict, failure
from imagemill.errors import ImagemillError
from imagemill.permissions import permissions
from imagemill.reference import ImageReference

__all__ = ["Finding", "Machine", "Verdict", "examine"]

EXAMINATIONS = (builder.examine, clouds.examine, registry.examine, service.examine)
"""What is looked at, in the order in which it is reported."""


def examine(machine: Machine) -> Iterator[Finding]:
    """All findings, each as soon as it is made."""
    config = LaunchConfig()
    try:
        loaded = machine.config()
        config = loaded.config
        yield from _config(loaded)
    except ImagemillError as error:
        yield failure("config", error)
    try:
        config = _with_destination(config, machine.destination)
    except ImagemillError as error:
        yield failure("destination", error)
    case = Case(machine, config, permissions(config))
    for examination in EXAMINATIONS:
        try:
            yield from examination(case)
        except ImportError as error:
            yield Finding(
                "packages",
                Verdict.FAILED,
                f"the Python package {error.name!r} cannot be imported: {error.msg}",
                "pip install 'imagemill[all]', or the extra of the config's cloud",
            )


def _config(loaded: Loaded) -> Iterator[Finding]:
    where = str(loaded.path) if loaded.path else "no file was found, so all is left to the defaults"
    yield Finding("config", Verdict.OK, f"{where}; builder: {loaded.config.builder.type}")
    for warning in loaded.warnings:
        yield Finding("config", Verdict.WARNING, warning)


def _with_destination(config: LaunchConfig, destination: str | None) -> LaunchConfig:
    """Return the config with another destination, where one was given."""
    if destination is None:
        return config
    repository = str(ImageReference.parse_destination(destination))
    return config.model_copy(
        update={"builder": config.builder.model_copy(update={"destination": repository})}
    )
