"""The command `kaniko job`: the Job that a build would run as, to be read before anything runs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagemill.cli.options import (
    Secret,
    destination_option,
    generation_options,
    image_options,
    launch_config_options,
)
from imagemill.environment import everything, variable
from imagemill.names import BUILD_TIMEOUT

if TYPE_CHECKING:
    from imagemill.builders.kaniko.job import Circumstances
    from imagemill.config import Environment, KanikoBuilder, Loaded
    from imagemill.ports import BuildInputs


@click.group(short_help="Show what Kaniko would be told.")
def kaniko() -> None:
    """Look at builds with Kaniko, in Kubernetes."""


@kaniko.command(short_help="Print the Kubernetes Job of a build.")
@click.argument("source", metavar="SRC")
@click.option("--config", metavar="FILE", help="Launch config with builder.type kaniko.")
@destination_option
@image_options
@generation_options
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    default=BUILD_TIMEOUT,
    help="How long the build may take.",
)
@launch_config_options
def job(
    source: str,
    *,
    config: str | None,
    default_config: Path | None,
    timeout: float,
    **given: Any,
) -> None:
    """Print the Job that a build of SRC would run as, as YAML. Nothing is created, and no cluster
    is asked.

    Secrets are in it by their names only. It is the Job of workers with this environment, that have
    a login for the registry.
    """
    import yaml

    from imagemill.adapters import Adapter, load
    from imagemill.cli import terminal
    from imagemill.cli.requests import check_config

    loaded = check_config(config, default_config)
    for warning in loaded.warnings:
        terminal.warn(warning)
    section = _section(loaded)
    inputs = _inputs(source, section, **given)
    uri = f"{section.build_context_store}/{inputs.source_hash}-{inputs.build_id}.tar.gz"
    facts = _circumstances(section, loaded.config.environment, inputs, uri, timeout)
    # By the table's way, since Kubernetes' client may not be installed.
    valid_job = load(
        {"kaniko": Adapter("imagemill.builders.kaniko.validation", "valid_job", "kaniko")},
        "kaniko",
        "builder",
    )
    yaml.safe_dump(
        valid_job(section, inputs, uri, facts), sys.stdout, sort_keys=False, width=sys.maxsize
    )


def _circumstances(
    section: "KanikoBuilder",
    environment: "Environment",
    inputs: "BuildInputs",
    uri: str,
    timeout: float,
) -> "Circumstances":
    """Return the facts that a worker with this environment would know of the Job."""
    from imagemill.builders.kaniko.context_access import endpoint, signs
    from imagemill.builders.kaniko.job import circumstances_of
    from imagemill.builders.kaniko.pod_credentials import needs_docker_secret
    from imagemill.builders.kaniko.trust import certificates
    from imagemill.settings import NodeSettings, read

    address = endpoint(uri, variable)
    return circumstances_of(
        section,
        environment,
        inputs,
        has_login=needs_docker_secret(section, environment, inputs.image),
        is_signed=signs(section, address),
        certificates=certificates([inputs.image.registry]),
        remaining=timeout,
        endpoint=address,
        insecure_registries=read(NodeSettings, everything()).insecure_registries,
    )


def _section(loaded: "Loaded") -> "KanikoBuilder":
    from imagemill.config import KanikoBuilder
    from imagemill.errors import UserError

    builder = loaded.config.builder
    if isinstance(builder, KanikoBuilder):
        return builder
    where = f"In {loaded.path}" if loaded.path else "Without a launch config"
    raise UserError(
        f"{where}, builder.type is {builder.type}, which makes no Job",
        "give --config FILE, with builder.type kaniko",
    )


def _inputs(
    source: str, section: "KanikoBuilder", *, secrets: dict[str, Secret], **fields: Any
) -> "BuildInputs":
    """Return what the builder would be told by the steps before it."""
    from imagemill.builders import check_builder
    from imagemill.cli.sources import hashed, labels_of
    from imagemill.context import hashing
    from imagemill.errors import UserError
    from imagemill.ports import BuildInputs
    from imagemill.reference import ImageReference

    found = hashed(source, section, secrets=secrets, **fields)
    request, source_hash = found.request, found.source_hash
    if len(request.platforms) > 1:
        raise UserError("A Job builds for one platform", f"give --platform {request.platforms[0]}")
    check_builder(request, section.type)
    return BuildInputs(
        image=ImageReference.parse_destination(request.destination or section.destination).with_tag(
            source_hash
        ),
        target=request.target,
        platform=hashing.platform(request, section),
        build_args=request.build_args,
        labels=labels_of(found),
        secrets={name: Path(name) for name in secrets},
        source_hash=source_hash,
        build_id="printed",
    )
