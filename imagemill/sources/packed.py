"""A context that lies packed in the workers' context store already, put there by whoever asks for the build."""

import re
from pathlib import Path

from imagemill.errors import UserError
from imagemill.ports import Progress
from imagemill.reference import ImageReference
from imagemill.sources.options import SourceOptions

_SPELLING = re.compile(r"context://(?P<hash>[0-9a-f]{64})", re.IGNORECASE)


def packed_source(source_hash: str) -> str:
    """The text of the source whose context is stored under this hash."""
    return f"context://{source_hash}"


class PackedSource:
    """`context://SOURCE_HASH`. That the hash is right is seen before an image is made of it."""

    image: ImageReference | None = None

    def __init__(self, text: str, options: SourceOptions) -> None:
        found = _SPELLING.fullmatch(text)
        if not found:
            raise UserError(f"{text!r} names no packed context", "write context://, and the 64 digits of a source hash")
        self.packed: str | None = found["hash"].lower()

    def pinned(self, progress: Progress) -> None:
        """See `Source.pinned`: the hash is known without reading anything."""

    def fetch(self, scratch: Path, progress: Progress) -> Path:
        """A `UserError`: who needs files has to look at `packed` first."""
        raise UserError(f"The context {self.packed} is packed in the workers' store", "give the source itself")
