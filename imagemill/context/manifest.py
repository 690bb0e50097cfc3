"""The manifest of a build context: one line for each entry that a build can see, and the hash that
names them all.

What does not end up in an image is not in it either: times, owners, and of the mode all but the
executable bit.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from imagemill.context.entries import Entries, Entry, quoted

FORMAT = 2
"""Part of every source hash. Raise it when the manifest, or what is packed for one, changes."""


class Dockerfile(NamedTuple):
    """The Dockerfile that the context is built by, which may be one that `.dockerignore` hides from
    the build.
    """

    path: str
    """Relative to the source's top."""
    sha256: str
    content: bytes = b""
    generated: bool = False
    """Whether the source has none, and it was generated."""

    @property
    def line(self) -> str:
        """The Dockerfile in the manifest, without a line end."""
        (path,) = quoted([self.path.encode(errors="surrogateescape")])
        return f"dockerfile {path} {self.sha256}"


@dataclass(frozen=True)
class Manifest:
    """All that a build context holds.

    Entries are in the order of a walk: sorted by the bytes of their names, and a folder right
    before what it holds.
    """

    dockerfile: Dockerfile
    entries: Sequence[Entry]
    without_git: bool = field(default=False, compare=False)
    """Whether the source has a `.git` that is left out though no ignore file says so."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What whoever builds it should know of its Dockerfile."""

    def lines(self) -> Iterator[str]:
        """Yield the manifest, line by line: ASCII, and never the same for two different contexts.

        Paths are `quoted`.
        """
        yield self.dockerfile.line
        yield from Entries.of(self.entries).lines()

    def __bytes__(self) -> bytes:
        return ("\n".join(self.lines()) + "\n").encode()

    @cached_property
    def sha256(self) -> str:
        """Of the manifest itself, in hex."""
        return hashlib.sha256(bytes(self)).hexdigest()

    @property
    def paths(self) -> Sequence[bytes]:
        """The paths of the entries."""
        return Entries.of(self.entries).paths

    @property
    def files(self) -> int:
        """How many files there are."""
        return sum(entry.kind in ("file", "exec") for entry in self.entries)

    @property
    def size(self) -> int:
        """Bytes in all files together."""
        return sum(Entries.of(self.entries).sizes)


def source_hash(
    manifest: Manifest,
    *,
    target: str | None = None,
    build_args: Mapping[str, str] | None = None,
    platform: str | None = None,
    labels: Mapping[str, str] | None = None,
    secrets: Iterable[str] = (),
    options: Mapping[str, str] | None = None,
) -> str:
    """Return the hash of everything that an image is made from, as 64 hex digits.

    `secrets` are the ids of build secrets: what they hold is never hashed. `options` are those of
    the builder that change the image. Mappings have no order.
    """
    inputs: dict[str, object] = {
        "format": FORMAT,
        "manifest": manifest.sha256,
        "target": target,
        "build_args": dict(build_args or {}),
        "platform": platform,
        "labels": dict(labels or {}),
        "secrets": sorted(secrets),
        # Only where there are any, so that hashes stay as they were where there are none.
        **({"options": dict(options)} if options else {}),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
