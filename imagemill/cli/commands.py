"""The command `imagemill`: its commands, how it ends, and what it says when it fails."""

import errno
import gc
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import click

from imagemill import __version__
from imagemill.cli import interrupts
from imagemill.cli.options import (
    FAILED,
    INTERRUPTED,
    UNREACHABLE,
    USAGE,
    Misuse,
    connection_options,
)
from imagemill.environment import variable
from imagemill.errors import ImagemillError, NotInstalled, UserError
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See `click.Group.resolve_command`; of one that is not here, say what may be meant."""
        name = args[0]
        if name in COMMANDS or name.startswith("-"):
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches

        from imagemill.cli import docker_habits

        near = get_close_matches(name, COMMANDS, n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        hint = docker_habits.COMMANDS.get(name) or f"{guess}see `imagemill --help`"
        raise Misuse(f"No such command {name!r}", hint)


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@connection_options(hidden=False)
def cli() -> None:
    """Turn source code into container images, and never build the same thing twice.

    Builds run on the service whose broker is given, or, without one, on an embedded service that
    lives as long as the command.

    Exit codes: 0 done, 1 the build failed, 2 usage, config or a missing package, 3 the service could not be
    reached, 130 interrupted.
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
            if sys.stdout is not None:
                sys.stdout.flush()
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
        return USAGE if isinstance(error, UserError | NotInstalled) else UNREACHABLE
    except OSError as error:
        return _refused(error)
    return code or 0


def _refused(error: OSError) -> int:
    """Say what this machine did not let us do where it can be anywhere: print, or know the folder
    that we are in. What comes from elsewhere is nobody's fault but ours.
    """
    if error.errno in (errno.EPIPE, errno.ENOSPC, errno.EIO) and error.filename is None:
        # Python would try once more on its way out, and say so in words of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            _say(f"Standard output cannot be written: {error.strerror}", "make room there")
        return FAILED
    try:
        Path.cwd()
    except FileNotFoundError:
        _say("The working folder is not there any more", "change into one that is")
        return USAGE
    raise error


def _say(message: str, hint: str, log: tuple[str, ...] = (), field: str = "") -> None:
    from imagemill.cli import terminal

    terminal.error(message, hint, log, field)


def _usage_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return (
        getattr(error, "hint", "")
        or f"see `{context.command_path if context else 'imagemill'} --help`"
    )
