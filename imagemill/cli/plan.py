"""The command `plan`: what a build will do, before it does it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from imagemill.cli.options import (
    Command,
    Connection,
    builder_config_option,
    connection_options,
    destination_option,
    generation_options,
    image_options,
    json_option,
    launch_config_options,
    way_options,
)


@click.command(cls=Command, short_help="Print what a build will do, and why.")
@click.argument("source", metavar="[SRC]", default=".")
@click.option(
    "--since",
    metavar="A",
    help="What was built before: a build's id, a source hash or a source.  [default: the last build]",
)
@destination_option
@builder_config_option
@image_options
@generation_options
@way_options
@json_option
@launch_config_options
@connection_options()
@click.pass_obj
def plan(
    connection: Connection,
    /,
    source: str,
    *,
    since: str | None,
    destination: str | None,
    config: str | None,
    default_config: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Print what a build of SRC will do: which instructions run again, because of which file or
    argument, and whether it needs a builder at all.

    It is told from the Dockerfile, from what differs from the last build of SRC, or from A, and
    from what the registry has. Where a change of code needs a builder, it says which line to move.
    SRC is the working folder if it is not given.
    """
    from imagemill.cli import prospects, render
    from imagemill.cli.requests import check_config
    from imagemill.cli.sources import tell
    from imagemill.cli.why import Read, kept_or_read

    builder = check_config(config, default_config).config.builder
    way = {name: options.pop(name) for name in ("no_cache", "force", "pull", "graft")}
    last = prospects.last_build(connection, source, destination)
    old = last.record if last else None
    if since:
        old = kept_or_read(connection, since, builder, options).record()
    new = Read(source, builder, options, offline=since is not None)
    tell(new.manifest)
    found = prospects.Prospects(
        connection,
        builder,
        new,
        None if since else destination or builder.destination or (last and last.repository),
        way,
    ).plan(old)
    render.plan(replace(found, before=last.times if last else ()), as_json=as_json)
