"""The command `worker`."""

import os
import sys

import click

from imagemill.cli.options import Connection, connection_options
from imagemill.cli.services import require_broker
from imagemill.environment import everything
from imagemill.names import POOLS


@click.command(short_help="Run a worker of a service.")
@click.option(
    "--pool",
    type=click.Choice(list(POOLS)),
    default="all",
    show_default=True,
    help="Which steps it takes: light, or the builds of a builder, or all.",
)
@click.argument("celery_arguments", metavar="[-- CELERY ARGUMENTS]", nargs=-1)
@connection_options()
@click.pass_obj
def worker(connection: Connection, /, pool: str, celery_arguments: tuple[str, ...]) -> None:
    """Run a worker until it is told to end (TERM), when it lets builds that run come to theirs.

    Its settings are variables, IMAGEMILL_BROKER above all. What follows `--` is for Celery's own
    command `worker`, and wins over what the pool says: --concurrency, --hostname, --beat …
    """
    from imagemill.embedded import worker_command

    require_broker(connection)
    given = {
        f"IMAGEMILL_{name.upper()}": value for name, value in vars(connection).items() if value
    }
    command = worker_command("worker.command", pool, *celery_arguments)
    # In our place, so that whoever watches over the command watches over the worker.
    os.execve(sys.executable, command, everything() | given)
