"""The command `build`."""

import json
from pathlib import Path
from typing import Any

import click

from imagemill.cli.docker_habits import INSTEAD, named, plain_switches
from imagemill.cli.options import (
    INLINE,
    Command,
    Connection,
    Misuse,
    Secret,
    cache_options,
    connection_options,
    destination_option,
    generation_options,
    image_options,
    json_option,
    launch_config_options,
    way_options,
)
from imagemill.cli.services import Service, service_for
from imagemill.environment import cache_folder, git_config, variable

OUTPUT = click.Path(path_type=Path, dir_okay=False)


class BuildCommand(Command):
    """Answers for docker's options that are not here, and takes its switches with a value."""

    instead = INSTEAD

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See `click.Command.parse_args`."""
        switches = [option for option in self.params if getattr(option, "is_flag", False)]
        names = {name for option in switches for name in option.opts}
        return super().parse_args(ctx, plain_switches(args, names))


@click.command(cls=BuildCommand, short_help="Build an image.")
@click.argument("source", metavar="[SRC]", default=".")
@destination_option
@click.option(
    "--tag",
    "-t",
    "tags",
    multiple=True,
    metavar="[REPOSITORY:]TAG",
    help="Tag to add beside the source hash; with a repository, it is the destination too.",
)
@click.option(
    "--config", metavar="FILE", help="Launch config; with a broker, the name of one on the workers."
)
@image_options
@cache_options
@generation_options
@way_options
@click.option("--push", is_flag=True, help="As with docker; done in any case.")
@click.option("--timeout", type=float, metavar="SECONDS", help="How long the build may take.")
@click.option(
    "--revision", metavar="TEXT", help="Revision of the source, for a label.  [default: from git]"
)
@click.option(
    "--source-url",
    metavar="URL",
    help="Where the source is published, for a label.  [default: from git]",
)
@json_option
@click.option(
    "--quiet", "-q", is_flag=True, help="Show no progress; print the image alone, pinned."
)
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "tty", "quiet"]),
    default="auto",
    help="How the build is shown: auto is tty on a terminal.",
)
@click.option("--iidfile", metavar="FILE", type=OUTPUT, help="Write the image's digest to FILE.")
@click.option(
    "--metadata-file", metavar="FILE", type=OUTPUT, help="Write digest, names and report to FILE."
)
@click.option(
    "--detach", is_flag=True, help="Print the build's id and leave it running; needs a broker."
)
@click.option(
    "--verbose", "-v", is_flag=True, help="With --json: show the progress on standard error."
)
@click.option(
    "--upload/--no-upload",
    default=True,
    help="With a broker: pack a SRC that is here into the workers' context store.  [default: if they have one]",
)
@click.option(
    "--state-dir", envvar="IMAGEMILL_STATE_DIR", type=click.Path(path_type=Path), hidden=True
)
@launch_config_options
@connection_options()
@click.pass_obj
def build(
    connection: Connection,
    /,
    source: str,
    *,
    config: str | None,
    default_config: Path | None,
    upload: bool,
    detach: bool,
    **given: Any,
) -> int:
    """Build an image from SRC: a folder, an archive (.tar, .tar.gz, .zip),
    git+https://HOST/PATH@REF or docker-image://REFERENCE.

    The image is pushed to the destination under its source hash; if it is there already, nothing is
    built. A source without a Dockerfile is built by a generated one, which `imagemill dockerfile`
    shows. Ctrl-C cancels the build. SRC is the working folder if it is not given.

    Where standard output is piped, the image alone goes there, pinned to its digest.
    """
    shown = _shown(given)
    service, fields = _service(connection, config, given, detach=detach), _fields(given)
    with service:
        # The embedded service starts while we import and ask git.
        from imagemill.cli import terminal
        from imagemill.cli.follow import Shown, attend
        from imagemill.cli.requests import check_config, request

        if not connection.broker:
            check_config(config, default_config)
        wanted = request(source, remote=bool(connection.broker), **fields)
        service.look_ahead(source)
        if connection.broker and upload:
            from imagemill.cli.upload import uploaded

            wanted = uploaded(service.connect(), wanted, terminal.say)
        if not detach:
            return attend(service, wanted, Shown(**shown))
        build = service.connect().submit(wanted)
        click.echo(json.dumps({"id": build}) if shown["as_json"] else build)
        return 0


def _shown(given: dict[str, Any]) -> dict[str, Any]:
    """Take out of the options those that say how the build is shown, and where its outcome goes."""
    names = ("as_json", "verbose", "progress", "iidfile", "metadata_file")
    shown = {name: given.pop(name) for name in names}
    return shown | {"progress": "quiet"} if given.pop("quiet") else shown


def _service(
    connection: Connection, config: str | None, given: dict[str, Any], *, detach: bool
) -> Service:
    """Return the service behind the broker, or one of the command's own, which ends with it."""
    secrets, ssh = given["secrets"], given["ssh"]
    files: dict[str, Path | bytes] = {}
    if connection.broker:
        _check_for_remote(config, secrets, ssh)
        given["config"] = config
    elif detach:
        raise Misuse(
            "--detach needs a broker: without one a build ends with its command",
            "set IMAGEMILL_BROKER",
        )
    else:
        files = _files(secrets, ssh)
    cache = given.pop("state_dir") or cache_folder()
    return service_for(connection, cache, _environment(config, given["timeout"]), files)


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the request that the options name, some of them in docker's way."""
    fields = {name: value for name, value in given.items() if name != "push"}
    fields |= {"secrets": tuple(given["secrets"]), "ssh": tuple(given["ssh"])}
    fields["tags"], fields["destination"] = named(given["tags"], given["destination"])
    if given["cache_to"] == INLINE:
        fields["build_args"]["BUILDKIT_INLINE_CACHE"], fields["cache_to"] = "1", None
    return fields


def _check_for_remote(
    config: str | None, secrets: dict[str, Secret], ssh: dict[str, Path | None]
) -> None:
    """Refuse what names a file here, which means nothing to workers elsewhere."""
    if config and ("/" in config or config.endswith((".yaml", ".yml"))):
        raise Misuse(
            f"With a broker, --config is the name of a config on the workers, not a file: {config}",
            f"put the file into the workers' IMAGEMILL_CONFIG_DIR, and give --config {Path(config).stem}",
        )
    if given := [name for name, path in secrets.items() if path is not None]:
        raise Misuse(
            f"With a broker, --secret takes no src and no env: secrets never travel"
            f" ({', '.join(given)})",
            "build secrets are the workers' own files, named by their ids in their IMAGEMILL_BUILD_SECRETS_DIR",
        )

    if keys := [name for name, path in ssh.items() if path]:
        raise Misuse(
            f"With a broker, --ssh takes no file: keys never travel ({', '.join(keys)})",
            "SSH keys are the workers' own files, ssh/ID in their IMAGEMILL_BUILD_SECRETS_DIR",
        )


def _files(secrets: dict[str, Secret], ssh: dict[str, Path | None]) -> dict[str, Path | bytes]:
    """Return the files and values of build secrets, and of SSH keys, which lie among them; without any,
    they are those of IMAGEMILL_BUILD_SECRETS_DIR.
    """
    files = {name: path for name, path in secrets.items() if path is not None}
    files |= {f"ssh/{name}": path for name, path in ssh.items() if path is not None}
    without = ", ".join(name for name, path in secrets.items() if path is None)
    if without and (files or not variable("IMAGEMILL_BUILD_SECRETS_DIR")):
        raise Misuse(
            f"It is not said where the build secret is: {without}",
            "give --secret id=ID,src=FILE or id=ID,env=NAME, or all of them as files in the folder"
            " IMAGEMILL_BUILD_SECRETS_DIR",
        )
    for name, path in files.items():
        if isinstance(path, Path) and (not path.exists() or path.is_dir()):
            option = "--ssh" if name.startswith("ssh/") else "--secret"
            raise click.BadParameter(f"there is no file {path}", param_hint=option)
    return files


def _environment(config: str | None, timeout: float | None) -> dict[str, str]:
    """Variables for the embedded worker: its builds may take as long as is asked for, and its git
    is the user's own.
    """
    variables = {"IMAGEMILL_CONFIG": str(Path(config).absolute())} if config else {}
    longest = str(timeout) if timeout and timeout > 0 else None
    limits = {name: variable(name) or longest or _UNLIMITED for name in _LIMITS}
    return variables | git_config() | limits


_LIMITS = ("IMAGEMILL_BUILD_TIMEOUT", "IMAGEMILL_HASH_TIMEOUT", "IMAGEMILL_UPLOAD_TIMEOUT")
_UNLIMITED = str(30 * 24 * 3600)
"""Seconds: who waits for a build of their own ends it themselves, if it takes too long."""
