"""The commands `dead`: messages that no worker may work with."""

import json
from dataclasses import asdict
from datetime import UTC, datetime

import click

from imagemill.cli.options import Command, Connection, connection_options, json_option
from imagemill.cli.services import client_of


@click.group(short_help="Messages that workers have refused.")
def dead() -> None:
    """Look at messages that workers have put aside, since nobody could work with them."""


@dead.command("list", cls=Command, short_help="List them, oldest first.")
@json_option
@connection_options()
@click.pass_obj
def list_(connection: Connection, /, *, as_json: bool) -> None:
    """List them, oldest first: id, time, queue, reason."""
    letters = client_of(connection).dead_letters()
    if as_json:
        print(json.dumps([asdict(letter) for letter in letters]))
        return
    from imagemill.text import one_line

    for letter in letters:
        at = datetime.fromtimestamp(letter.at, UTC).isoformat(timespec="seconds")
        print(letter.id, at, letter.queue, one_line(letter.reason, 200), sep="  ")


@dead.command(cls=Command, short_help="Print one.")
@click.argument("letter", metavar="ID")
@connection_options()
@click.pass_obj
def show(connection: Connection, /, letter: str) -> None:
    """Print a message and why it was refused, as JSON. It may hold build arguments."""
    print(json.dumps(asdict(client_of(connection).dead_letter(letter)), indent=2))


@dead.command(cls=Command, short_help="Send one again.")
@click.argument("letter", metavar="ID")
@connection_options()
@click.pass_obj
def retry(connection: Connection, /, letter: str) -> None:
    """Put a message back into its queue, as after an upgrade of the workers."""
    client_of(connection).retry_dead_letter(letter)


@dead.command(cls=Command, short_help="Forget one.")
@click.argument("letter", metavar="ID")
@connection_options()
@click.pass_obj
def drop(connection: Connection, /, letter: str) -> None:
    """Forget a message."""
    client_of(connection).drop_dead_letter(letter)
