"""What several commands take (where the service is, what an image is made of), and how all of them
end.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import click

from imagemill.environment import variable

FAILED, USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130
"""Exit codes: the build failed; usage or config is wrong; the service could not be reached;
somebody pressed Ctrl-C.
"""

Function = TypeVar("Function", bound=Callable[..., Any])


class Command(click.Command):
    """A command whose usage errors all point to its own help; click's own forget it when an option
    has no value, and propose hidden ones.
    """

    instead: Mapping[str, str] = MappingProxyType({})
    """Options that others have, and what to do here instead."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            error.ctx = error.ctx or ctx
            instead = self.instead.get(error.option_name)
            if instead is None:
                hidden = {
                    name
                    for option in self.params
                    if isinstance(option, click.Option) and option.hidden
                    for name in option.opts
                }
                shown = [name for name in error.possibilities or () if name not in hidden]
                raise click.NoSuchOption(error.option_name, None, shown, error.ctx) from None
            misuse = Misuse(f"There is no {error.option_name} here, as docker has it", instead)
            misuse.ctx = error.ctx
            raise misuse from None
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


class Misuse(click.UsageError):
    """A usage error with a hint of its own."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass
class Connection:
    """Where the service is. Without a broker, builds run on an embedded one."""

    broker: str | None = None
    backend: str | None = None
    key_prefix: str = ""


def options(*added: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Return several of click's decorators as one, in their order."""

    def decorate(function: Function) -> Function:
        return reduce(lambda made, add: add(made), reversed(added), function)

    return decorate


def connection_options(*, hidden: bool = True) -> Callable[[Function], Function]:
    """`--broker`, `--backend`, `--key-prefix`, into the context's `Connection`.

    They belong to the group, which also reads their variables, and are understood behind a
    command's name too.
    """

    def remember(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        connection = context.ensure_object(Connection)
        if value is not None:
            setattr(connection, str(parameter.name), value)

    def decorate(function: Function) -> Function:
        for flag, what in (
            ("--key-prefix", "What the service puts before its keys in Redis."),
            ("--backend", "URL of the Redis for results.  [default: the broker]"),
            ("--broker", "URL of the service's broker: redis://, rediss://, amqp://, amqps://."),
        ):
            envvar = None if hidden else f"IMAGEMILL_{flag[2:].replace('-', '_').upper()}"
            add = click.option(
                flag,
                envvar=envvar,
                show_envvar=not hidden,
                metavar="URL" if "URL" in what else "TEXT",
                help=what,
                hidden=hidden,
                expose_value=False,
                callback=remember,
            )
            function = add(function)
        return function

    return decorate


def cache_options(function: Function) -> Function:
    """Add where layers are taken from, and left; they change no image."""
    for flag, what in (
        ("--cache-to", "Leave layers at REF for later builds; type=inline: within the image."),
        ("--cache-from", "Take layers from the image REF; may be given many times."),
    ):
        function = click.option(
            flag,
            metavar="REF|type=registry,ref=REF",
            multiple=flag == "--cache-from",
            callback=_cache,
            help=what,
        )(function)
    return function


INLINE = "inline"
"""Of `--cache-to`: what made the layers is written into the image."""

_CACHE_ATTRIBUTES = {"type", "ref", "mode"}


def _cache(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...] | str | None
) -> tuple[str, ...] | str | None:
    if isinstance(value, tuple):
        return tuple(_cache_place(text, parameter) for text in value)
    return None if value is None else _cache_place(value, parameter)


def _cache_place(text: str, parameter: click.Parameter) -> str:
    """Return the image that docker's spelling of a cache names, or `INLINE`."""
    fields = dict(field.partition("=")[::2] for field in text.split(","))
    if fields == {text: ""}:
        return text
    kind, flag = fields.get("type", "registry"), parameter.opts[0]
    if kind == INLINE and flag == "--cache-to" and len(fields) == 1:
        return INLINE
    if kind != "registry" or not fields.get("ref"):
        raise Misuse(
            f"{flag} {text}: layers are kept in registries",
            f"give {flag} type=registry,ref=REGISTRY/REPOSITORY:TAG",
        )
    if more := ", ".join(sorted(fields.keys() - _CACHE_ATTRIBUTES)):
        raise Misuse(f"{flag} knows no {more}", f"give {flag} type=registry,ref={fields['ref']}")
    return fields["ref"]


def _words(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    try:
        return None if value is None else tuple(shlex.split(value))
    except ValueError:
        raise Misuse(
            f"A quotation in {value!r} has no end",
            "quote the whole once: --entrypoint 'python x.py'",
        ) from None


def launch_config_options(function: Function) -> Function:
    """Which launch config holds on this machine, where no `--config` names one."""
    return click.option(
        "--default-config",
        envvar="IMAGEMILL_CONFIG",
        type=click.Path(path_type=Path),
        hidden=True,
    )(function)


def json_option(function: Function) -> Function:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def _build_args(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    arguments = {}
    for key, separator, value in (text.partition("=") for text in values):
        _check_key(key, "build argument")
        # As with docker build: the variables that the caller names, and what is not set is not
        # given.
        given = value if separator else variable(key)
        if given is not None:
            arguments[key] = given
    return arguments


def _labels(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    labels = {}
    for key, separator, value in (text.partition("=") for text in values):
        _check_key(key, "label")
        if not separator:
            raise click.BadParameter(f"the label {key!r} needs a value: KEY=VALUE")
        labels[key] = value
    return labels


def _check_key(key: str, what: str) -> None:
    if not key:
        raise click.BadParameter(f"a {what} needs a name: KEY=VALUE")


Secret = Path | bytes | None
"""Where a build secret is: in a file, in a variable (its value), or with the workers."""


def _secrets(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, Secret]:
    return dict(map(_secret, values))


def _ssh(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, Path | None]:
    """Read `ID`, which is with the workers or the agent's, or `ID=KEYFILE`."""
    keys = {}
    for name, equals, path in (text.partition("=") for text in values):
        if not name or bool(equals) != bool(path) or "," in path:
            raise click.BadParameter(f"expected ID or ID=KEYFILE, found {name}{equals}{path!r}")
        if path and Path(path).is_socket():
            raise Misuse(
                f"{path} is the socket of an agent", f"give --ssh {name}, with SSH_AUTH_SOCK={path}"
            )
        keys[name] = Path(path) if path else None
    return keys


def _secret(text: str) -> tuple[str, Secret]:
    """`id=ID`, `id=ID,src=FILE`, `id=ID,env=NAME`; the names of docker's own option."""
    fields = dict(field.partition("=")[::2] for field in text.split(","))
    name, kind = fields.pop("id", ""), fields.pop("type", "")
    path = fields.pop("src", "") or fields.pop("source", "")
    named = fields.pop("env", "")
    if kind == "env" and path and not named:  # docker: type=env,src=NAME
        path, named = "", path
    if not name or fields or kind not in ("", "file", "env") or (path and named):
        raise click.BadParameter(
            f"expected id=ID, id=ID,src=FILE or id=ID,env=NAME, found {text!r}"
        )
    if not named:
        return name, Path(path) if path else None
    value = variable(named)
    if value is None:
        raise click.BadParameter(f"the variable {named} is not set")
    return name, value.encode()


image_options = options(
    click.option(
        "--file",
        "-f",
        "dockerfile",
        metavar="PATH",
        help="The Dockerfile: relative to the working folder, else to the source; -: standard input.",
    ),
    click.option("--target", metavar="STAGE", help="Stage of the Dockerfile to build."),
    click.option(
        "--build-arg",
        "build_args",
        metavar="KEY[=VALUE]",
        multiple=True,
        callback=_build_args,
        help="Value of an ARG; without =VALUE that of the environment variable. Not for secrets.",
    ),
    click.option(
        "--label",
        "labels",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_labels,
        help="Label of the image.",
    ),
    click.option(
        "--platform",
        metavar="OS/ARCH[,…]",
        help="Target platform, or several for one image.  [default: the config's]",
    ),
    click.option(
        "--secret",
        "secrets",
        metavar="id=ID[,src=FILE|,env=NAME]",
        multiple=True,
        callback=_secrets,
        help="Build secret for RUN --mount=type=secret; src and env only without a broker.",
    ),
    click.option(
        "--ssh",
        metavar="default|ID[=KEYFILE]",
        multiple=True,
        callback=_ssh,
        help="SSH agent or key for RUN --mount=type=ssh; KEYFILE only without a broker.",
    ),
)
"""What an image is made of beside its source, and so is part of the source hash."""

generation_options = options(
    click.option(
        "--python", metavar="VERSION", help="Version of Python.  [default: the project's]"
    ),
    click.option(
        "--base",
        "base_image",
        metavar="IMAGE",
        help="Base image.  [default: python:VERSION-slim]",
    ),
    click.option(
        "--accelerator",
        metavar="NAME|IMAGE",
        help="cuda, cuda12.4 …, or a base image for it.",
    ),
    click.option(
        "--apt",
        "system_packages",
        metavar="PACKAGE",
        multiple=True,
        help="Package of the system, such as libgl1; may be given many times.",
    ),
    click.option(
        "--entrypoint",
        metavar="COMMAND",
        callback=_words,
        help="What the image runs.  [default: found]",
    ),
)
"""What is asked of the Dockerfile that is generated for a source without one."""

way_options = options(
    click.option("--force", is_flag=True, help="Build even if the image is there."),
    click.option(
        "--no-cache", is_flag=True, help="Build, and take nothing from the builder's cache."
    ),
    click.option("--pull", is_flag=True, help="Build, and ask for base images anew."),
    click.option(
        "--graft/--no-graft",
        default=True,
        help="Where code alone has changed, make its layers anew on the earlier image, without a builder.",
    ),
)
"""How an image is built, whatever it is made of."""

destination_option = click.option(
    "--destination", "-d", metavar="REPOSITORY", help="Where to push.  [default: the config's]"
)

builder_config_option = click.option(
    "--config", metavar="FILE", help="Launch config, for its platform and builder."
)
