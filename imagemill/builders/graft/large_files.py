"""Large files have layers of their own, so that they are sent once: found again by content, in
whichever project.
"""

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagemill.builders.graft.copying import Placed
from imagemill.builders.graft.image import Blob
from imagemill.builders.graft.layers import Layer, Node, decompressed
from imagemill.builders.graft.packing import Read, pack, pays, store
from imagemill.context import Entry
from imagemill.ports import Progress
from imagemill.reference import ImageReference
from imagemill.registries.blobs import Blobs
from imagemill.state.grafts import Grafts

LARGE = 16 << 20
"""Bytes from which on a file has a layer of its own."""

MOST_LAYERS = 100
"""Of an image; engines take no more than 127."""

_CHUNK = 1 << 20


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
    ) -> tuple[Mapping[str, Placed], Mapping[str, Placed]]:
        """Return the changes that are for one layer together, and those that have one each: at most
        `room`, the largest first.
        """
        large = [path for path, placed in changes.items() if is_large(placed.node)]
        large.sort(key=lambda path: (-changes[path].node.size, path))
        alone = sorted(large[: max(room, 0)])
        rest = {path: placed for path, placed in changes.items() if path not in alone}
        return rest, {path: changes[path] for path in alone}

    def layer(self, path: str, placed: Placed, source: Read) -> Blob:
        """Return the layer of one file, which the repository has by then; only sent if it has to
        be.
        """
        name = self._name(path, placed.node)
        kept = self.known.find_fact(name)
        if kept is not None:
            digest, size, diff_id, gzipped, repository = json.loads(kept)
            if self._is_there(digest, repository):
                return Blob(digest, size, diff_id, gzipped)
        assert placed.entry is not None
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            write = pack if pays(source(placed.entry.path)) else store
            blob = write({path: placed}, source, file)
            if not self.blobs.has(self.target, blob.digest):
                self.blobs.push(self.target, blob.digest, file, blob.size, self.progress)
        self.known.keep_fact(name, json.dumps([*blob, self.target.repository]))
        return blob

    def lift(self, layer: Layer, digest: str) -> None:
        """Have the repository hold a layer of its own for each large file of a layer `digest`,
        which it has, so that none is sent when code changes.
        """
        wanted = {
            path: node
            for path, node in layer.entries.items()
            if is_large(node) and self.known.find_fact(self._name(path, node)) is None
        }
        if not wanted:
            return
        with (
            self.blobs.open(self.target, digest) as stream,
            tarfile.open(
                fileobj=decompressed(stream),
                mode="r|",
                encoding="utf-8",
                errors="surrogateescape",
            ) as archive,
        ):
            for info in archive:
                path = info.name.strip("/").removeprefix("./")
                if path in wanted and info.isreg():
                    self._lift(archive, info, path, wanted[path])

    def _lift(self, archive: tarfile.TarFile, info: tarfile.TarInfo, path: str, node: Node) -> None:
        content = archive.extractfile(info)
        assert content is not None
        with tempfile.TemporaryFile(dir=self.scratch) as file:
            while chunk := content.read(_CHUNK):
                file.write(chunk)

            def source(_: bytes) -> Iterator[bytes]:
                file.seek(0)
                return iter(lambda: file.read(_CHUNK), b"")

            self.layer(path, Placed(node, Entry("file", b"", node.size, node.sha256)), source)

    def _is_there(self, digest: str, repository: str) -> bool:
        if self.blobs.has(self.target, digest):
            return True
        other = ImageReference.parse(repository)
        return other.path != self.target.path and self.blobs.mount(self.target, digest, other)

    def _name(self, path: str, node: Node) -> str:
        """By all that is in the layer, and by the registry."""
        text = json.dumps([self.target.registry, path, *node])
        return f"large:{hashlib.sha256(text.encode()).hexdigest()}"


def is_large(node: Node) -> bool:
    """Whether it is a file that has a layer of its own."""
    return node.kind == "file" and node.size >= LARGE
