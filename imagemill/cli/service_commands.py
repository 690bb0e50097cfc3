"""The commands for builds that run on a service: `list`, `status`, `wait`, `logs`, `cancel`."""

import re
import sys
from contextlib import suppress

import click

from imagemill.cli.options import Command, Connection, connection_options, json_option
from imagemill.cli.services import client_of

_CANCEL_SECONDS = 10.0


@click.command(cls=Command, short_help="Where a build is.")
@click.argument("build", metavar="ID")
@json_option
@connection_options()
@click.pass_obj
def status(connection: Connection, /, build: str, *, as_json: bool) -> None:
    """Print where the build is, and how long its steps took."""
    client = client_of(connection)
    from imagemill.cli import render

    render.status(client.status(build), as_json=as_json)


_AGE = re.compile(r"([0-9]+)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _age(_: click.Context, __: click.Parameter, text: str) -> int:
    """Read a time such as `90`, `15m`, `2h` or `1d`, in seconds."""
    found = _AGE.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no time: write 90s, 15m, 2h or 1d")
    return int(found[1]) * _SECONDS[found[2]]


@click.command("list", cls=Command, short_help="The builds of the last day.")
@click.option(
    "--state", "states", multiple=True, metavar="STATE", help="Only builds in it: failed …"
)
@click.option("--destination", default="", metavar="TEXT", help="Only builds to such a repository.")
@click.option(
    "--since", default="1d", metavar="TIME", callback=_age, help="Only newer ones: 15m, 2h."
)
@click.option("-n", "most", type=click.IntRange(min=1), default=20, help="At most so many.")
@json_option
@connection_options()
@click.pass_obj
def list_(
    connection: Connection,
    /,
    states: tuple[str, ...],
    *,
    destination: str,
    since: int,
    most: int,
    as_json: bool,
) -> None:
    """Print the builds that workers have taken, newest first."""
    client = client_of(connection)
    from imagemill.cli import render
    from imagemill.messages import state_named

    wanted = [state_named(state) for state in states]
    found = client.builds(states=wanted, destination=destination, since=since, most=most)
    render.builds(found, as_json=as_json)


@click.command(cls=Command, short_help="Wait for a build and print its report.")
@click.argument("build", metavar="ID")
@json_option
@click.option(
    "--verbose", "-v", is_flag=True, help="With --json: show the progress on standard error."
)
@connection_options()
@click.pass_obj
def wait(connection: Connection, /, build: str, *, as_json: bool, verbose: bool) -> int:
    """Show the build until it ends, then its report. Ctrl-C leaves it running."""
    client = client_of(connection)
    from imagemill.cli import render
    from imagemill.cli.follow import exit_code, follow
    from imagemill.cli.progress import view_for

    with view_for(as_json=as_json, verbose=verbose) as view:
        report = follow(client, build, view)
    alone = not sys.stdout.isatty()
    render.report(report, as_json=as_json, log_shown=view.log_shown, kept=True, alone=alone)
    return exit_code(report)


@click.command(cls=Command, short_help="Print a build's log.")
@click.argument("build", metavar="ID")
@click.option("--follow", "-f", is_flag=True, help="Go on until the build ends.")
@connection_options()
@click.pass_obj
def logs(connection: Connection, /, build: str, *, follow: bool) -> None:
    """Print the lines of the build's log."""
    client = client_of(connection)
    from imagemill.text import printable

    for line in client.logs(build, follow=follow):
        print(printable(line), flush=follow)


@click.command(cls=Command, short_help="Cancel a build.")
@click.argument("build", metavar="ID")
@json_option
@connection_options()
@click.pass_obj
def cancel(connection: Connection, /, build: str, *, as_json: bool) -> None:
    """Have the build stop, and say what became of it. A build that has ended stays as it is."""
    client = client_of(connection)
    from imagemill.cli import render

    had_ended = client.status(build).report is not None
    client.cancel(build)
    with suppress(TimeoutError):
        client.wait(build, timeout=_CANCEL_SECONDS)
    render.cancelled(client.status(build), had_ended=had_ended, as_json=as_json)
