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
    destination_option,
    generation_options,
    image_options,
    json_option,
    launch_config_options,
)

if TYPE_CHECKING:
    from imagemill.builders.graft.planning import Inputs, Known, Plan
    from imagemill.cli.why import Read
    from imagemill.config.model import Builder
    from imagemill.reference import ImageReference
    from imagemill.settings import NodeSettings
    from imagemill.state.grafts import Earlier
    from imagemill.state.last_builds import LastBuild
    from imagemill.why.differences import Differences
    from imagemill.why.record import InputRecord

_LOOKED_AT = 20
"""Builds of a service that are looked at, at most, for the last one of a source and for times."""


@click.command(cls=Command, short_help="Print what a build will do, and why.")
@click.argument("source", metavar="SRC")
@click.option(
    "--since",
    metavar="A",
    help="What was built before: a build's id, a source hash or a source.  [default: the last build]",
)
@destination_option
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
    """
    from imagemill.builders.graft import Refusal, planning
    from imagemill.cli import render
    from imagemill.cli.requests import check_config
    from imagemill.cli.why import Read, kept_or_read
    from imagemill.errors import UserError
    from imagemill.reference import ImageReference

    builder = check_config(config, default_config).config.builder
    last = _last(connection, source, destination)
    repository = destination or builder.destination or (last.repository if last else None)
    new = Read(source, builder, options, offline=since is not None)
    old = last.record if last else None
    if since:
        old = kept_or_read(connection, since, builder, options).record()
    inputs = planning.Inputs(
        new.manifest,
        new.record().target,
        new.record().platform,
        options["build_args"],
        new.bases,
    )
    known = _known(old, new.record())
    try:
        if since or repository is None:
            found = planning.plan(inputs, known)
        else:
            image = ImageReference.parse_destination(repository).with_tag(new.source_hash)
            found = _looked_up(connection, builder, new, image, inputs, known)
    except Refusal as refusal:
        raise UserError(f"A build is bound to fail: {refusal.reason}") from None
    render.plan(replace(found, before=last.times if last else ()), as_json=as_json)


def _last(connection: Connection, source: str, destination: str | None) -> "LastBuild | None":
    """Return the last build of the source that has succeeded, where it is known."""
    from imagemill.cli.requests import located
    from imagemill.sources import unversioned
    from imagemill.state.grafts import FolderShelf
    from imagemill.state.last_builds import LastBuilds

    wanted = unversioned(located(source))
    if not connection.broker:
        return LastBuilds(FolderShelf(_cache() / "builds")).find(wanted)
    from imagemill.cli import terminal
    from imagemill.errors import PermissionDenied, ServiceUnreachable

    try:
        return _last_of_service(connection, wanted, destination)
    except (PermissionDenied, ServiceUnreachable) as error:
        terminal.warn(f"What was built before is not known: {error.message}")
        return None


def _last_of_service(
    connection: Connection, wanted: str, destination: str | None
) -> "LastBuild | None":
    """Return the last build of the source, or to the destination, where the source was uploaded."""
    from imagemill.cli.services import client_of
    from imagemill.errors import UserError
    from imagemill.reference import ImageReference
    from imagemill.sources import unversioned
    from imagemill.state.last_builds import MOST_TIMES, EarlierTime, LastBuild

    with client_of(connection, patience=0) as client:
        builds = client.builds(states=["SUCCEEDED"], destination=destination or "")
        same = [build for build in builds if unversioned(build.source) == wanted]
        ids = [build.id for build in islice(same or (builds if destination else ()), _LOOKED_AT)]
        reports = [report for report in (client.status(build).report for build in ids) if report]
        if not reports or not reports[0].image or not reports[0].source_hash:
            return None
        try:
            record = client.inputs(reports[0].source_hash)
        except UserError:  # it is not kept any more
            record = None
    times = tuple(EarlierTime.of(report) for report in reports if report.built)
    return LastBuild(ImageReference.parse(reports[0].image).repository, times[:MOST_TIMES], record)


def _cache() -> Path:
    from imagemill.environment import cache_folder, variable

    return Path(variable("IMAGEMILL_STATE_DIR") or cache_folder())


def _looked_up(
    connection: Connection,
    builder: "Builder",
    new: "Read",
    image: "ImageReference",
    inputs: "Inputs",
    known: "Known",
) -> "Plan":
    """Return what will be done, by what the registry has, and without a service by the earlier
    images that are kept here.
    """
    from imagemill.builders.graft import Refusal, planning
    from imagemill.environment import everything
    from imagemill.registries import registry_for
    from imagemill.registries.docker_config import DockerConfig
    from imagemill.settings import NodeSettings, read

    settings = read(NodeSettings, everything())
    config = DockerConfig(settings.docker_config)
    registry = registry_for(image, docker_config=config, insecure=settings.insecure_registries)
    if registry.digest(image) is not None:
        return planning.Plan("nothing", f"{image} is there")
    found = planning.plan(inputs, replace(known, same=False))
    if builder.graft is False:
        return _by_builder(found, "builder.graft is false")
    if connection.broker:
        return found
    try:
        earlier = _earlier(new, builder, image, settings)
    except Refusal as refusal:
        return _by_builder(found, refusal.reason)
    if earlier is None:
        return _by_builder(found, "no image is known that differs from this one in its code alone")
    code = replace(_known(earlier.record, new.record()), others=(), same=False)
    return planning.plan(inputs, code)


def _by_builder(found: "Plan", why: str) -> "Plan":
    return replace(found, way="builder", why=why, sent=None) if found.way == "code" else found


def _earlier(
    new: "Read", builder: "Builder", image: "ImageReference", settings: "NodeSettings"
) -> "Earlier | None":
    """Return the image that the command line's own service would make this one of; `Refusal` where
    the code cannot be told from the rest.
    """
    from imagemill.builders import detect
    from imagemill.builders.graft.grafting import GraftPlace, question
    from imagemill.context.hashing import Inputs as Given
    from imagemill.environment import everything
    from imagemill.ports import BuildInputs
    from imagemill.registries import blobs_for
    from imagemill.registries.docker_config import DockerConfig
    from imagemill.state.grafts import FolderShelf, Grafts

    config = DockerConfig(settings.docker_config)
    place = GraftPlace(
        lambda image: blobs_for(image.registry, config, settings.insecure_registries),
        Grafts(FolderShelf(_cache() / "grafts")),
        _cache(),
    )
    kind = builder.type
    if kind == "auto":
        kind = detect(settings.docker_cli, settings.docker_host, config, everything())
    inputs = BuildInputs(image, labels=new.request.labels)
    given = Given.of(new.request, builder)
    asked = question(new.manifest, inputs, given, kind, place, known=new.bases)
    return place.known.find_image(asked.key)


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
    others = tuple(_others(found))
    return Known(frozenset(paths), others, old.entries, old.keys or None, not found.labels)


def _others(found: "Differences") -> list[str]:
    """Return what differs besides the files, in words."""
    kinds: dict[str, Any] = {
        "Imagemill's version": found.format,
        "base image": [each.after or each.before for each in found.base_images],
        "Dockerfile": found.dockerfile,
        "target": found.target,
        "platform": found.platform,
        "build argument": found.build_args,
        "build secret": found.secrets,
        "option of the builder": found.options,
        "label": [name for name, change in found.labels.items() if change.after is None],
    }
    named = "base image", "build argument", "label"
    return [
        f"another {kind} ({', '.join(map(str, differs))})" if kind in named else f"another {kind}"
        for kind, differs in kinds.items()
        if differs
    ]
