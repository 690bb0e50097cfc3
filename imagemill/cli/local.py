"""The commands that need no service: `hash` and `config check`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagemill.cli.options import (
    Command,
    builder_config_option,
    generation_options,
    image_options,
    json_option,
    launch_config_options,
)

if TYPE_CHECKING:
    from imagemill.config import Loaded


@click.command("hash", cls=Command, short_help="Print the source hash.")
@click.argument("source", metavar="SRC")
@click.option(
    "--manifest",
    "with_manifest",
    is_flag=True,
    help="Print what it covers of the source, line by line.",
)
@builder_config_option
@image_options
@generation_options
@launch_config_options
def hash_(
    source: str,
    *,
    with_manifest: bool,
    config: str | None,
    default_config: Path | None,
    **inputs: Any,
) -> None:
    """Print the source hash of SRC: the tag that a build with the same options gives its image."""
    from imagemill.cli.requests import check_config
    from imagemill.cli.sources import hashed, tell

    found = hashed(source, check_config(config, default_config).config.builder, **inputs)
    for line in found.manifest.lines() if with_manifest else [found.source_hash]:
        click.echo(line)
    tell(found.manifest)


@click.group(short_help="Check a launch config.")
def config() -> None:
    """Check and explain the launch config."""


@config.command(cls=Command, short_help="Print what a launch config says.")
@click.argument("file", required=False)
@json_option
@launch_config_options
def check(file: str | None, *, default_config: Path | None, as_json: bool) -> None:
    """Load a launch config, FILE or the one that holds here, and print where it came from and all
    its values.
    """
    from imagemill.cli import render
    from imagemill.cli.requests import check_config
    from imagemill.config import advice, describe

    loaded = check_config(file, default_config)
    _check_job(loaded)
    described = describe(loaded)
    described["warnings"] += advice(loaded)
    render.launch_config(described, as_json=as_json)


def _check_job(loaded: "Loaded") -> None:
    """Refuse what each build with the config would be refused for: its Job is one of Kubernetes."""
    from imagemill.adapters import Adapter, load
    from imagemill.config import KanikoBuilder
    from imagemill.config.faults import FREE
    from imagemill.config.loading import refusal

    section = loaded.config.builder
    if not isinstance(section, KanikoBuilder) or not section.kaniko_config:
        return
    # By the table's way, since Kubernetes' client may not be installed.
    faults = load(
        {"kaniko": Adapter("imagemill.builders.kaniko.validation", "faults", "kaniko")},
        "kaniko",
        "builder",
    )
    found = [fault.below(FREE) for fault in faults(section)]
    if found and loaded.path and loaded.document:
        raise refusal(loaded.path, loaded.document, found)
