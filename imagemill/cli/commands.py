"""The command `imagemill`: its commands, how it ends, and what it says when it fails."""

import gc
import sys
from io import TextIOWrapper
from typing import NoReturn

import click

from imagemill import __version__
from imagemill.cli import interrupts
from imagemill.cli.build import build
from imagemill.cli.dead import dead
from imagemill.cli.dockerfile import dockerfile
from imagemill.cli.doctor import doctor
from imagemill.cli.kaniko import kaniko
from imagemill.cli.local import config, hash_
from imagemill.cli.options import INTERRUPTED, UNREACHABLE, USAGE, connection_options
from imagemill.cli.permissions import permissions
from imagemill.cli.plan import plan
from imagemill.cli.service_commands import cancel, list_, logs, status, wait
from imagemill.cli.why import why
from imagemill.cli.worker import worker
from imagemill.environment import variable
from imagemill.errors import ImagemillError, UserError
from imagemill.extras import explained


class Commands(click.Group):
    """Lists the commands in the order in which one comes to need them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


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


for command in (
    build,
    list_,
    status,
    wait,
    logs,
    cancel,
    hash_,
    why,
    plan,
    dockerfile,
    config,
    permissions,
    kaniko,
    doctor,
    dead,
    worker,
):
    cli.add_command(command)


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
