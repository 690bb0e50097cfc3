"""The command `why`: what makes one image another than the other, and so why it is built anew."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagemill.cli.options import (
    FAILED,
    Command,
    Connection,
    Misuse,
    builder_config_option,
    connection_options,
    generation_options,
    image_options,
    json_option,
    launch_config_options,
)
from imagemill.cli.services import client_of

if TYPE_CHECKING:
    from imagemill.config.model import Builder
    from imagemill.why.record import InputRecord

_SOURCE_HASH = re.compile(r"[0-9a-f]{64}")
_BUILD = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@click.command(cls=Command, short_help="Print what differs between two builds or sources.")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@builder_config_option
@image_options
@generation_options
@click.option("--all", "everything", is_flag=True, help="Print long lists whole on a terminal too.")
@json_option
@launch_config_options
@connection_options()
@click.pass_obj
def why(
    connection: Connection,
    /,
    before: str,
    after: str,
    *,
    config: str | None,
    default_config: Path | None,
    everything: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Print what differs between what A and B are made from: why the one is not the image of the
    other.

    A and B are each the id of a build, a source hash (an image's tag), or a source: a folder, an
    archive or git+https://HOST/PATH@REF. The options say how an image would be made from a source;
    a build has its own.

    Exit codes: 0 the same, 1 different.
    """
    from imagemill.cli.render_differences import Side, tell
    from imagemill.cli.requests import check_config
    from imagemill.why.differences import Differences, find

    def image(text: str) -> "Kept | Read":
        builder = check_config(config, default_config).config.builder
        return kept_or_read(connection, text, builder, options)

    old, new = image(before), image(after)
    same = old.source_hash == new.source_hash
    found = Differences() if same else find(old.record(), new.record())
    sides = Side(before, old.source_hash), Side(after, new.source_hash)
    tell(sides, found, as_json=as_json, everything=everything)
    return 0 if same else FAILED


def kept_or_read(
    connection: Connection, text: str, builder: "Builder", options: dict[str, Any]
) -> "Kept | Read":
    """Return the image that a text names: the service keeps what it was made from, or it is read
    here.
    """
    if _SOURCE_HASH.fullmatch(text) or _BUILD.fullmatch(text):
        return Kept(connection, text)
    return Read(text, builder, options)


class Kept:
    """An image whose record the service keeps; it is asked for only if it is needed."""

    def __init__(self, connection: Connection, text: str) -> None:
        self._client = client_of(connection)
        self.source_hash = text if _SOURCE_HASH.fullmatch(text) else self._client.source_hash(text)

    def record(self) -> "InputRecord":
        return self._client.inputs(self.source_hash)


class Read:
    """An image that would be made from a source, which is read here."""

    def __init__(
        self, source: str, builder: "Builder", options: dict[str, Any], *, offline: bool = True
    ) -> None:
        from imagemill.cli.sources import hashed

        self._builder = builder
        self._hashed = hashed(_found(source), builder, offline=offline, **options)
        self.source_hash = self._hashed.source_hash
        self.manifest = self._hashed.manifest
        self.bases = self._hashed.bases
        self.request = self._hashed.request

    def labels(self) -> dict[str, str]:
        """Return the labels that it would get."""
        from imagemill.cli.sources import labels_of

        return labels_of(self._hashed)

    def record(self) -> "InputRecord":
        from imagemill.why import record as inputs

        found = self._hashed
        return inputs.record(found.request, self._builder, found.manifest, found.bases)


def _found(source: str) -> str:
    """Return the source, with its place in full; here it might have been something else."""
    from imagemill.cli.requests import located

    try:
        return located(source)
    except Misuse as misuse:
        raise Misuse(
            misuse.message,
            "A and B are each the id of a build, a source hash, or a folder, an archive or git+https://HOST/PATH@REF",
        ) from None
