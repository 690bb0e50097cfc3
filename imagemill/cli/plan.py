"""The command `plan`: what a build will do, before it does it."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagemill.cli.options import (
    Command,
    Connection,
    builder_config_option,
    connection_options,
    generation_options,
    image_options,
    json_option,
    launch_config_options,
)

if TYPE_CHECKING:
    from imagemill.builders.graft.planning import EarlierTime, Known
    from imagemill.why.differences import Differences
    from imagemill.why.record import InputRecord

_SHOWN, _LOOKED_AT = 5, 20
"""Earlier builds whose times are printed, at most, and that are asked about."""


@click.command(cls=Command, short_help="Print what a build will do, and why.")
@click.argument("source", metavar="SRC")
@click.option(
    "--since",
    metavar="A",
    help="What was built before: a build's id, a source hash or a source.  [default: nothing]",
)
@builder_config_option
@image_options
@generation_options
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
    config: str | None,
    default_config: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Print what a build of SRC will do: which instructions run again, because of which file or
    argument, and whether it needs a builder at all.

    It is told from the Dockerfile, and from what differs from A; without --since all is new. Where
    a change of code needs a builder, it says which line to move. It has how long the last builds of
    SRC took, where a service knows them.
    """
    from imagemill.builders.graft import Refusal, planning
    from imagemill.cli import render
    from imagemill.cli.requests import check_config
    from imagemill.cli.why import Read, kept_or_read
    from imagemill.errors import UserError

    builder = check_config(config, default_config).config.builder
    new = Read(source, builder, options)
    old = kept_or_read(connection, since, builder, options).record() if since else None
    target = options.get("target")
    try:
        known = _known(old, new.record())
        found = planning.plan(new.manifest, target, known, new.build_args)
    except Refusal as refusal:
        raise UserError(f"The Dockerfile cannot be read: {refusal.reason}") from None
    render.plan(replace(found, before=_before(connection, source)), as_json=as_json)


def _before(connection: Connection, source: str) -> "tuple[EarlierTime, ...]":
    """Return how long the last builds of the source took that have made an image."""
    if not connection.broker:
        return ()
    from imagemill.builders.graft.planning import EarlierTime
    from imagemill.cli import terminal
    from imagemill.cli.requests import located
    from imagemill.cli.services import client_of
    from imagemill.errors import PermissionDenied, ServiceUnreachable
    from imagemill.sources import unversioned

    wanted = unversioned(located(source))
    try:
        with client_of(connection, patience=0) as client:
            builds = client.builds(states=["SUCCEEDED"])
            same = (build.id for build in builds if unversioned(build.source) == wanted)
            reports = (client.status(build).report for build in islice(same, _LOOKED_AT))
            made = [report for report in reports if report is not None and report.built]
    except (PermissionDenied, ServiceUnreachable) as error:
        terminal.warn(f"How long it took before is not known: {error.message}")
        return ()
    return tuple(
        EarlierTime("code" if report.grafted else "builder", round(report.seconds, 3))
        for report in made[:_SHOWN]
    )


def _known(old: "InputRecord | None", new: "InputRecord") -> "Known":
    from imagemill.builders.graft.planning import Known
    from imagemill.why.differences import find

    if old is None:
        return Known(frozenset(entry.path for entry in new.entries), ("no earlier image is known",))
    found = find(old, new)
    paths = {
        entry.path
        for pair in (*found.changed, *found.renamed)
        for entry in (pair.before, pair.after)
    } | {entry.path for entry in (*found.added, *found.removed)}
    return Known(frozenset(paths), tuple(_others(found)), old.entries)


def _others(found: "Differences") -> list[str]:
    """Return what differs besides the files, in words."""
    kinds = {
        "Imagemill's version": found.format,
        "base image": found.base_images,
        "Dockerfile": found.dockerfile,
        "target": found.target,
        "platform": found.platform,
        "build argument": found.build_args,
        "build secret": found.secrets,
        "option of the builder": found.options,
    }
    return [f"another {name}" for name, differs in kinds.items() if differs]
