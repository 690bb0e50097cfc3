"""Large files have layers of their own, so that they are sent once: found again by content, in
whichever project.
"""

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from imagemill.builders.graft import Refusal
from imagemill.builders.graft.copying import Placed, above
from imagemill.builders.graft.image import Blob
from imagemill.builders.graft.layers import Layer, Node, decompressed, opened
from imagemill.builders.graft.packing import Read, pack, pays, store
from imagemill.context import Entry
from imagemill.context.entries import CUT
from imagemill.ports import Progress
from imagemill.reference import ImageReference
from imagemill.registries.blobs import Blobs
from imagemill.state.grafts import Grafts

LARGE = 16 << 20
"""Bytes from which on a file has a layer of its own."""

MOST_LAYERS = 100
"""Of an image; engines take no more than 127."""

_CHUNK = 1 << 20
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class LargeFiles:
    """The layers of single files that one registry has."""

    target: ImageReference
    """The repository that is to have them."""
    blobs: Blobs
    known: Grafts
    scratch: Path
    progress: Progress

    def split(
        self, changes: Mapping[str, Placed], room: int
    ) -> tuple[Mapping[str, Placed], Mapping[str, Mapping[str, Placed]]]:
        """Return the changes that are for one layer together, and those that have one each, with the
        folders above: at most `room`, the largest first.
        """
        large = [path for path, placed in changes.items() if is_large(placed.node)]
        large.sort(key=lambda path: (-changes[path].node.size, path))
        alone = sorted(large[: max(room, 0)])
        rest = {path: placed for path, placed in changes.items() if path not in alone}
        if alone and not any(placed.entry for placed in rest.values()):
            rest = {}  # but folders above, which those have too
        return rest, {path: _within(changes, path) for path in alone}

    def layer(self, path: str, changes: Mapping[str, Placed], source: Read) -> Blob:
        """Return the layer of one file and the folders above, which the repository has by then; only
        sent if it has to be.
        """
        name = self._name({each: placed.node for each, placed in changes.items()})
        kept = self.known.find_fact(name)
        if kept is not None:
            digest, size, diff_id, gzipped, repository = json.loads(kept)
            if self._is_there(digest, repository):
                return Blob(digest, size, diff_id, gzipped)
        entry = changes[path].entry
        assert entry is not None
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            write = pack if pays(source(entry.path)) else store
            blob = write(changes, source, file)
            if not self.blobs.has(self.target, blob.digest):
                self.blobs.push(self.target, blob.digest, file, blob.size, self.progress)
        self.known.keep_fact(name, json.dumps([*blob, self.target.repository]))
        return blob

    def lift(self, layer: Layer, digest: str, sources: Container[str]) -> None:
        """Have the repository hold a layer of its own for each large file of a layer `digest`,
        which it has, so that none is sent when code changes.

        `sources` are the cut digests of the source's files: others may be a dependency's, and
        their layers stay.
        """
        wanted = {
            path: _within(layer.entries, path)
            for path, node in layer.entries.items()
            if is_large(node)
            and node.sha256[: 2 * CUT] in sources
            and self.known.find_fact(self._name(_within(layer.entries, path))) is None
        }
        if not wanted:
            return
        with (
            self.blobs.open(self.target, digest) as stream,
            opened(decompressed(stream), digest) as archive,
        ):
            for info in archive:
                path = info.name.strip("/").removeprefix("./")
                if path in wanted and info.isreg():
                    self._lift(archive, info, path, wanted[path])

    def _lift(
        self,
        archive: tarfile.TarFile,
        info: tarfile.TarInfo,
        path: str,
        nodes: Mapping[str, Node],
    ) -> None:
        content, node = archive.extractfile(info), nodes[path]
        assert content is not None
        digest = hashlib.sha256()
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            while chunk := content.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
            if digest.hexdigest() != node.sha256:
                raise Refusal(f"/{path} comes in another content than it was read with")

            def source(_: bytes) -> Iterator[bytes]:
                file.seek(0)
                return iter(lambda: file.read(_CHUNK), b"")

            changes = {each: Placed(nodes[each]) for each in nodes}
            changes[path] = Placed(node, Entry("file", b"", node.size, node.sha256))
            self.layer(path, changes, source)

    def _is_there(self, digest: str, repository: str) -> bool:
        if self.blobs.has(self.target, digest):
            return True
        other = ImageReference.parse(repository)
        return other.path != self.target.path and self.blobs.mount(self.target, digest, other)

    def _name(self, nodes: Mapping[str, Node]) -> str:
        """By all that is in the layer, and by the registry."""
        text = json.dumps([self.target.registry, *sorted(nodes.items())])
        return f"large:{hashlib.sha256(text.encode()).hexdigest()}"


def _within(found: Mapping[str, _Found], path: str) -> Mapping[str, _Found]:
    """Return what is at a path and at the folders above it."""
    return {each: found[each] for each in above(path) if each in found}


def is_large(node: Node) -> bool:
    """Whether it is a file that has a layer of its own."""
    return node.kind == "file" and node.size >= LARGE
