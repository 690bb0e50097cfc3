"""The command `imagemill`: its commands, how it ends, and what it says when it fails."""

import gc
import sys
from collections.abc import Mapping
from importlib import import_module
from io import TextIOWrapper
from types import MappingProxyType
from typing import NoReturn

import click

from imagemill import __version__
from imagemill.cli import interrupts
from imagemill.cli.options import INTERRUPTED, UNREACHABLE, USAGE, connection_options
from imagemill.environment import variable
from imagemill.errors import ImagemillError, UserError
from imagemill.extras import explained

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "build": "build:build",
        "list": "service_commands:list_",
        "status": "service_commands:status",
        "wait": "service_commands:wait",
        "logs": "service_commands:logs",
        "cancel": "service_commands:cancel",
        "hash": "local:hash_",
        "why": "why:why",
        "plan": "plan:plan",
        "dockerfile": "dockerfile:dockerfile",
        "config": "local:config",
        "permissions": "permissions:permissions",
        "kaniko": "kaniko:kaniko",
        "doctor": "doctor:doctor",
        "dead": "dead:dead",
        "worker": "worker:worker",
    }
)
"""Command → its module and name there, in the order in which one comes to need them."""


class Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"imagemill.cli.{module}"), name)
        return command


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@connection_options(hidden=False)
def cli() -> None:
    """Turn source code into container images, and never build the same thing twice.

    Builds run on the service whose broker is given, or, without one, on an embedded service that
    lives as long as the command.

    Exit codes: 0 done, 1 the build failed, 2 usage or config, 3 the service could not be reached,
    130 interrupted.
    """


def main() -> NoReturn:
    """Run the command and exit: the entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # File names and log lines may hold what the terminal's encoding has no character for.
            stream.reconfigure(errors="backslashreplace")
    with interrupts.remembered():
        code = _run()
    gc.freeze()  # on its way out Python would look for cycles in all that was imported, for 0.1 s
    sys.exit(code)


def _run() -> int:
    try:
        with explained():
            if variable("IMAGEMILL_AUTHORITIES") or variable("SSL_CERT_FILE"):
                from imagemill import authorities

                authorities.install()
            code: int | None = cli.main(prog_name="imagemill", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        _say(error.format_message(), _usage_hint(error))
        return USAGE
    except click.Abort:
        return INTERRUPTED
    except ImagemillError as error:
        _say(error.message, error.hint, getattr(error, "log", ()), error.field)
        return USAGE if isinstance(error, UserError) else UNREACHABLE
    return code or 0


def _say(message: str, hint: str, log: tuple[str, ...] = (), field: str = "") -> None:
    from imagemill.cli import terminal

    terminal.error(message, hint, log, field)


def _usage_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return (
        getattr(error, "hint", "")
        or f"see `{context.command_path if context else 'imagemill'} --help`"
    )
