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
    tenant: str | None = None
    """Whose they are."""

    def split(
        self, changes: Mapping[str, Placed], room: int
    ) -> tuple[Mapping[str, Placed], Mapping[str, Mapping[str, Placed]]]:
        """Return the changes that are for one layer together, and those that have one each, with the
        folders above: at most `room`, the largest first.
        """
        sizes = {
            path: placed.node.size for path, placed in changes.items() if is_large(placed.node)
        }
        alone = sorted(_largest(sizes, room))
        rest = {path: placed for path, placed in changes.items() if path not in alone}
        if alone and not any(placed.entry for placed in rest.values()):
            rest = {}  # but folders above, which those have too
        return rest, {path: _within(changes, path) for path in alone}

    def layer(self, path: str, changes: Mapping[str, Placed], source: Read) -> Blob:
        """Return the layer of one file and the folders above, which the repository has by then; only
        sent if it has to be.
        """
        nodes = {each: placed.node for each, placed in changes.items()}
        kept = self.known.find_fact(self._name(nodes))
        if kept is not None:
            *fields, repository = json.loads(kept)
            blob = Blob(*fields)
            if self._is_there(blob.digest, repository):
                return blob
        entry = changes[path].entry
        assert entry is not None
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            write = pack if pays(source(entry.path)) else store
            blob = write(changes, source, file)
            if not self.blobs.has(self.target, blob.digest):
                self.blobs.push(self.target, blob.digest, file, blob.size, self.progress)
        self._keep(nodes, blob)
        return blob

    def lift(self, layer: Layer, blob: Blob, sources: Container[str], room: int) -> int:
        """Have the repository hold a layer of its own for the large files of a layer, which it has as
        `blob`, so that none is sent when code changes: for `room` at most. Returns for how many.

        `sources` are the cut digests of the source's files: others may be a dependency's, and
        their layers stay.
        """
        sizes = {
            path: node.size
            for path, node in layer.entries.items()
            if is_large(node) and node.sha256[: 2 * CUT] in sources
        }
        chosen = {path: _within(layer.entries, path) for path in _largest(sizes, room)}
        wanted = {
            path: nodes
            for path, nodes in chosen.items()
            if self.known.find_fact(self._name(nodes)) is None
        }
        changed = layer.entries.keys() - {""} | {*layer.removed, *layer.emptied}
        if [nodes.keys() for nodes in wanted.values()] == [changed]:
            (nodes,) = wanted.values()
            self._keep(nodes, blob)  # the layer is one of that file alone
        elif wanted:
            self._lift_all(blob.digest, wanted)
        return len(chosen)

    def _lift_all(self, digest: str, wanted: Mapping[str, Mapping[str, Node]]) -> None:
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

    def _keep(self, nodes: Mapping[str, Node], blob: Blob) -> None:
        self.known.keep_fact(self._name(nodes), json.dumps([*blob, self.target.repository]))

    def _is_there(self, digest: str, repository: str) -> bool:
        if self.blobs.has(self.target, digest):
            return True
        other = ImageReference.parse(repository)
        return other.path != self.target.path and self.blobs.mount(self.target, digest, other)

    def _name(self, nodes: Mapping[str, Node]) -> str:
        """By all that is in the layer, by the registry, and by whose it is."""
        text = json.dumps([self.target.registry, self.tenant, *sorted(nodes.items())])
        return f"large:{hashlib.sha256(text.encode()).hexdigest()}"


def _within(found: Mapping[str, _Found], path: str) -> Mapping[str, _Found]:
    """Return what is at a path and at the folders above it."""
    return {each: found[each] for each in above(path) if each in found}


def _largest(sizes: Mapping[str, int], room: int) -> list[str]:
    """Return the paths of the largest files, at most `room`."""
    return sorted(sizes, key=lambda path: (-sizes[path], path))[: max(room, 0)]


def is_large(node: Node) -> bool:
    """Whether it is a file that has a layer of its own."""
    return node.kind == "file" and node.size >= LARGE
