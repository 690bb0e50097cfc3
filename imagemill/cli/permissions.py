"""The command `permissions`."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagemill.cli.options import json_option, launch_config_options

if TYPE_CHECKING:
    from imagemill.permissions import Permissions, PolicyDocument

_CLOUDS = {"aws": "AWS", "gcp": "Google Cloud", "azure": "Azure", "kubernetes": "Kubernetes"}
_WIDTH = 98


@click.command(short_help="Print the least that has to be granted for a launch config.")
@click.option("--config", metavar="FILE", help="Launch config to look at.")
@json_option
@launch_config_options
def permissions(*, config: str | None, default_config: Path | None, as_json: bool) -> None:
    """Print policies that grant what builds with this launch config need, and nothing else.

    No cloud is asked: `imagemill doctor` tries what has been granted. With --json, a policy is
    found by its cloud and its party, such as .aws.worker.policy.
    """
    from imagemill.cli import render
    from imagemill.cli.requests import check_config
    from imagemill.permissions import permissions as needed

    found = needed(check_config(config, default_config).config)
    if as_json:
        render.json_(_by_cloud(found))
    else:
        _show(found)


def _by_cloud(found: "Permissions") -> dict[str, Any]:
    clouds: dict[str, Any] = {}
    for policy in found.policies():
        clouds.setdefault(policy.cloud, {})[policy.party] = policy.data
    return {**clouds, "notes": list(found.notes)}


def _show(found: "Permissions") -> None:
    """Each block as it can be pasted, below comments that say what it is."""
    from rich.text import Text

    from imagemill.cli.terminal import console
    from imagemill.text import printable

    out = console()
    sections = [section for policy in found.policies() for section in _sections(policy)]
    sections += [(_comment(note), "") for note in found.notes]
    for number, (comment, text) in enumerate(
        sections or [(_comment("Nothing has to be granted"), "")]
    ):
        if number:
            out.print()
        out.print(Text(printable(comment), "dim"))
        if text:
            out.print(Text(printable(text)))


def _sections(policy: "PolicyDocument") -> Iterator[tuple[str, str]]:
    from imagemill.permissions.policy import words

    where = f"{_CLOUDS[policy.cloud]}, for the {words(policy.party)}"
    for block in policy.blocks:
        yield _comment(f"{where}: {block.title}"), block.text


def _comment(text: str) -> str:
    lines = [
        wrapped
        for line in text.splitlines()
        for wrapped in textwrap.wrap(line, _WIDTH, break_on_hyphens=False)
    ]
    return "\n".join(f"# {line}" for line in lines)
