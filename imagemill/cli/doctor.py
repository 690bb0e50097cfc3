"""The command `doctor`."""

from pathlib import Path

import click

from imagemill.cli.options import (
    FAILED,
    Connection,
    connection_options,
    destination_option,
    json_option,
    launch_config_options,
)
from imagemill.cli.services import client_of
from imagemill.environment import everything


@click.command(short_help="See whether everything is there that a build needs.")
@click.option("--config", metavar="FILE", help="Launch config to look at.")
@destination_option
@json_option
@launch_config_options
@connection_options()
@click.pass_obj
def doctor(
    connection: Connection,
    /,
    *,
    config: str | None,
    default_config: Path | None,
    destination: str | None,
    as_json: bool,
) -> int:
    """Check all that builds with a launch config need, and say what to do about what is missing.

    Credentials, context store, registry, builder and service are tried for real. Nothing is left
    behind, and nothing is made. Exit code 1 if anything has failed.
    """
    import logging

    from imagemill.cli import render_findings
    from imagemill.cli.requests import check_config
    from imagemill.doctor import Machine, examine
    from imagemill.registries.docker_config import DockerConfig
    from imagemill.settings import NodeSettings, read

    logging.getLogger().addHandler(
        logging.NullHandler()
    )  # what SDKs would say besides is told by the findings
    settings = read(NodeSettings, everything())
    machine = Machine(
        config=lambda: check_config(config, default_config),
        destination=destination,
        docker_cli=settings.docker_cli,
        docker_host=settings.docker_host,
        docker_config=DockerConfig(settings.docker_config),
        insecure_registries=settings.insecure_registries,
        client=client_of(connection) if connection.broker else None,
        environment=settings.environment,
    )
    return 0 if render_findings.show(examine(machine), as_json=as_json) else FAILED
