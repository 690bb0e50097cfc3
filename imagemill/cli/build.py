"""The command `build`."""

import json
from pathlib import Path
from typing import Any

import click

from imagemill.cli.options import (
    Command,
    Connection,
    Misuse,
    connection_options,
    generation_options,
    image_options,
    json_option,
    launch_config_options,
)
from imagemill.cli.services import service_for
from imagemill.environment import cache_folder, git_config


@click.command(cls=Command, short_help="Build an image.")
@click.argument("source", metavar="SRC")
@click.option(
    "--destination", "-d", metavar="REPOSITORY", help="Where to push.  [default: the config's]"
)
@click.option(
    "--tag", "-t", "tags", multiple=True, metavar="TAG", help="Tag to add beside the source hash."
)
@click.option(
    "--config", metavar="FILE", help="Launch config; with a broker, the name of one on the workers."
)
@image_options
@generation_options
@click.option("--force", is_flag=True, help="Build even if the image is there.")
@click.option("--pull", is_flag=True, help="Ask anew what the base images are; use those.")
@click.option("--no-cache", is_flag=True, help="Run every instruction; implies --force.")
@click.option(
    "--graft/--no-graft",
    default=True,
    help="Where code alone has changed, make its layers anew on the earlier image, without a builder.",
)
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
    secrets: dict[str, Path | None],
    as_json: bool,
    detach: bool,
    verbose: bool,
    upload: bool,
    state_dir: Path | None,
    **fields: Any,
) -> int:
    """Build an image from SRC: a folder, an archive (.tar, .tar.gz, .zip),
    git+https://HOST/PATH@REF or docker-image://REFERENCE.

    The image is pushed to the destination under its source hash; if it is there already, nothing is
    built. A source without a Dockerfile is built by a generated one, which `imagemill dockerfile`
    shows. Ctrl-C cancels the build.
    """
    if connection.broker:
        _check_for_remote(config, secrets)
        fields["config"] = config
    elif detach:
        raise Misuse(
            "--detach needs a broker: without one a build ends with its command",
            "set IMAGEMILL_BROKER",
        )
    service = service_for(
        connection,
        state_dir or cache_folder(),
        _environment(config, fields["timeout"]),
        {} if connection.broker else _files(secrets),
    )
    with service:
        # The embedded service starts while we import and ask git.
        from imagemill.cli.follow import attend
        from imagemill.cli.requests import check_config, request

        if not connection.broker:
            check_config(config, default_config)
        wanted = request(source, secrets=tuple(secrets), remote=bool(connection.broker), **fields)
        if connection.broker and upload:
            from imagemill.cli import terminal
            from imagemill.cli.sources import uploaded

            wanted = uploaded(service.connect(), wanted, terminal.say)
        if detach:
            build = service.connect().submit(wanted)
            click.echo(json.dumps({"id": build}) if as_json else build)
            return 0
        return attend(service, wanted, as_json=as_json, verbose=verbose)


def _check_for_remote(config: str | None, secrets: dict[str, Path | None]) -> None:
    """What names a file here means nothing to workers elsewhere."""
    if config and ("/" in config or config.endswith((".yaml", ".yml"))):
        raise Misuse(
            f"With a broker, --config is the name of a config on the workers, not a file: {config}",
            f"put the file into the workers' IMAGEMILL_CONFIG_DIR, and give --config {Path(config).stem}",
        )
    if given := [name for name, path in secrets.items() if path]:
        raise Misuse(
            f"With a broker, --secret takes no src: secrets never travel ({', '.join(given)})",
            "build secrets are the workers' own files, named by their ids in their IMAGEMILL_BUILD_SECRETS_DIR",
        )


def _files(secrets: dict[str, Path | None]) -> dict[str, Path]:
    """The files of build secrets; without any, they are those of IMAGEMILL_BUILD_SECRETS_DIR."""
    files = {name: path for name, path in secrets.items() if path}
    if files and len(files) < len(secrets):
        without = ", ".join(name for name, path in secrets.items() if not path)
        raise Misuse(
            f"--secret without src beside others with src: {without}",
            "give src for each, or for none",
        )
    for path in files.values():
        if not path.exists() or path.is_dir():
            raise click.BadParameter(f"there is no file {path}", param_hint="--secret")
    return files


def _environment(config: str | None, timeout: float | None) -> dict[str, str]:
    """Variables for the embedded worker: its builds may take as long as is asked for, and its git
    is the user's own.
    """
    variables = {"IMAGEMILL_CONFIG": str(Path(config).absolute())} if config else {}
    return (
        variables
        | git_config()
        | ({"IMAGEMILL_BUILD_TIMEOUT": str(timeout)} if timeout and timeout > 0 else {})
    )
