"""What a layer holds, read from the headers of its tar, and what all layers below a place add up
to.

Layers: https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md. Paths are relative to the
root, without a slash at either end; bytes that are not UTF-8 are lone surrogates, as in PEP 383.
"""

import gzip
import hashlib
import json
import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from typing import BinaryIO, Literal, NamedTuple, Self, cast

from isal import igzip_threaded, isal_zlib

from imagemill.builders.graft import Refusal
from imagemill.files import zstd
from imagemill.ports import Progress

Kind = Literal["dir", "file", "link", "hard", "other"]

WHITEOUT = ".wh."
"""How names begin that stand for what is gone."""

_OPAQUE = ".wh..wh..opq"
_MOST_ENTRIES = 2_000_000
_MOST_LINKS = 255
_CHUNK = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_DAMAGED = tarfile.TarError, gzip.BadGzipFile, isal_zlib.IsalError, zstd.DamagedError, EOFError
_VERSION = b"2"


class Node(NamedTuple):
    """What stands at a path: all that a file system shows of it but its times."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    target: str = ""
    """Of a link its text; of a hard link the path that it is another name of."""
    size: int = 0
    sha256: str = ""
    """Of a file's content, in hex; empty where it was not wanted."""
    extra: bool = False
    """Whether it has more, such as extended attributes, which we do not compare."""


@dataclass(frozen=True)
class Layer:
    """The changes that a layer makes to what is below it."""

    entries: Mapping[str, Node] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    """Paths that are gone."""
    emptied: tuple[str, ...] = ()
    """Folders of which all that is below is gone."""
    has_contents: bool = False
    """Whether its files' digests are known."""

    def dump(self) -> bytes:
        """Return the layer as it is kept."""
        columns = list(zip(*self.entries.values(), strict=True))
        document = [list(self.entries), columns, self.removed, self.emptied, self.has_contents]
        return _VERSION + zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 1)

    @classmethod
    def load(cls, data: bytes) -> Self | None:
        """Return what `dump` wrote; None if another version did."""
        if data[:1] != _VERSION:
            return None
        paths, columns, removed, emptied, has_contents = json.loads(zlib.decompress(data[1:]))
        entries = dict(zip(paths, map(Node._make, zip(*columns, strict=True)), strict=True))
        return cls(entries, tuple(removed), tuple(emptied), has_contents)


def read_layer(stream: BufferedReader, diff_id: str, contents: bool, progress: Progress) -> Layer:
    """Read a layer's blob, compressed or not, and make sure that it is the layer `diff_id`.

    `contents` says whether the digests of its files are wanted. `Refusal` for what is no such layer.
    """
    hashed = _Hashed(decompressed(stream), progress)
    with opened(cast(BinaryIO, hashed), diff_id) as archive:
        layer = _read(archive, contents)
        hashed.drain()
    if f"sha256:{hashed.sha256.hexdigest()}" != diff_id:
        raise Refusal(f"a layer is not {diff_id}, as its image says")
    return layer


@contextmanager
def opened(stream: BinaryIO, name: str) -> Iterator[tarfile.TarFile]:
    """Open the tar of a layer, to be read once; `Refusal` where it cannot be read."""
    try:
        with tarfile.open(
            fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape"
        ) as archive:
            yield archive
    except _DAMAGED as error:  # type: ignore[misc]
        raise Refusal(f"the layer {name} cannot be read: {error}") from error


class FileView:
    """What a stack of layers adds up to: path → node. The root itself is always there."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._found: dict[str, set[str]] | None = None
        """Folder → what is in it; None as long as nothing was removed, which alone asks for it."""

    def apply(self, layer: Layer) -> None:
        """Lay one more layer over what is there."""
        for path in layer.emptied:
            for name in list(self._children.get(path, ())):
                self._remove(name)
        for path in layer.removed:
            self._remove(path)
        for path, node in layer.entries.items():
            if node.kind == "hard":
                # What it is a name of is in this layer, before it, or in one below.
                node = self.nodes.get(node.target, node)
            if path in self.nodes and node.kind != "dir" and path in self._children:
                self._remove(path)
            self._put(path, node)

    def copy(self) -> dict[str, Node]:
        """Return the nodes, to be changed by whoever asks."""
        return dict(self.nodes)

    @property
    def _children(self) -> dict[str, set[str]]:
        if self._found is None:
            self._found = {}
            for path in filter(None, self.nodes):
                self._found.setdefault(path.rpartition("/")[0], set()).add(path)
        return self._found

    def _put(self, path: str, node: Node) -> None:
        if path not in self.nodes and path:
            parent = path.rpartition("/")[0]
            if self._found is not None:
                self._found.setdefault(parent, set()).add(path)
            if parent and parent not in self.nodes:
                # A layer need not name the folders above: its unpacker decides what they are.
                self._put(parent, Node("dir", -1, -1, -1))
            elif parent and self.nodes[parent].kind != "dir":
                raise Refusal(f"a layer has /{path}, and /{parent} is no folder")
        self.nodes[path] = node

    def _remove(self, path: str) -> None:
        waiting = [path]
        while waiting:
            gone = waiting.pop()
            waiting += self._children.pop(gone, ())
            self.nodes.pop(gone, None)
        self._children.get(path.rpartition("/")[0], set()).discard(path)


def resolved(nodes: Mapping[str, Node], path: str) -> str:
    """Where a path leads to, through links, within the root; what is not there stays as it is.

    As containerd's `fs.RootPath`, by which BuildKit finds where to copy to.
    """
    waiting, found, links = _parts(path)[::-1], "", 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            found = posixpath.dirname(found)
            continue
        here = posixpath.join(found, part)
        node = nodes.get(here)
        if node is None or node.kind != "link":
            found = here
            continue
        links += 1
        if links > _MOST_LINKS:
            raise Refusal(f"/{path} leads through links that never end")
        found = "" if node.target.startswith("/") else found
        waiting += _parts(node.target)[::-1]
    return found


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


class _Hashed:
    """A stream of which the SHA-256 is taken while it is read."""

    def __init__(self, stream: BinaryIO, progress: Progress) -> None:
        self._stream, self._progress = stream, progress
        self.sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        self._progress.check()
        data = self._stream.read(size)
        self.sha256.update(data)
        return data

    def drain(self) -> None:
        """Read on to the end."""
        while self.read(_CHUNK):
            pass


def decompressed(stream: BufferedReader) -> BinaryIO:
    """Return the tar in a layer's blob, which may be compressed or not."""
    head = stream.peek(4)
    if head.startswith(_GZIP_MAGIC):
        return igzip_threaded.open(stream, "rb", threads=1)  # type: ignore[no-untyped-call,no-any-return]
    if zstd.PACKED.match(head):
        return zstd.unpacked(stream)
    return stream


def _read(archive: tarfile.TarFile, contents: bool) -> Layer:
    entries: dict[str, Node] = {}
    removed, emptied = [], []
    for path, info in _members(archive):
        folder, name = posixpath.split(path)
        if name == _OPAQUE:
            emptied.append(folder)
        elif name.startswith(WHITEOUT):
            removed.append(posixpath.join(folder, name.removeprefix(WHITEOUT)))
        elif path or info.isdir():
            # Twice in one tar: the later one counts.
            entries.pop(path, None)
            entries[path] = _node(archive, info, contents)
        archive.members.clear()  # type: ignore[attr-defined]  # or tarfile keeps all headers
    return Layer(entries, tuple(removed), tuple(emptied), contents)


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    for number, info in enumerate(archive):
        if number > _MOST_ENTRIES:
            raise Refusal(f"a layer has more than {_MOST_ENTRIES} entries")
        parts = _parts(info.name)
        if ".." in parts:
            raise Refusal("a layer has a path that leads out of the image")
        yield "/".join(parts), info


def _node(archive: tarfile.TarFile, info: tarfile.TarInfo, contents: bool) -> Node:
    extra = any(name.startswith("SCHILY.xattr.") for name in info.pax_headers)
    mode, uid, gid = info.mode & 0o7777, info.uid, info.gid
    if info.isdir():
        return Node("dir", mode, uid, gid, extra=extra)
    if info.issym():
        return Node("link", 0o777, uid, gid, info.linkname, extra=extra)
    if info.islnk():
        return Node("hard", mode, uid, gid, "/".join(_parts(info.linkname)))
    if info.isfile() and not info.issparse():
        digest = _sha256(archive, info) if contents else ""
        return Node("file", mode, uid, gid, "", info.size, digest, extra)
    return Node("other", mode, uid, gid, extra=True)


def _sha256(archive: tarfile.TarFile, info: tarfile.TarInfo) -> str:
    digest = hashlib.sha256()
    content = archive.extractfile(info)
    assert content is not None
    while chunk := content.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
