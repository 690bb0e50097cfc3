"""The manifest of a packed context that somebody else has packed, read without unpacking it.

What is not laid out as `tarball.Writer` does it is refused: a builder must find there what the manifest says.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from imagemill.context.manifest import Dockerfile, Entry, Manifest
from imagemill.context.tarball import CONTEXT, DOCKERFILE, IGNORE_NOTHING
from imagemill.errors import OperatorError, UserError
from imagemill.storage import UnsafePathError, shown

_TOP = f"{CONTEXT}/".encode()
_DOCKERFILE = DOCKERFILE.encode()
_IGNORE = f"{DOCKERFILE}.dockerignore".encode()
_MAX_DOCKERFILE = 4 << 20


class Bounds(NamedTuple):
    """What may come out of a packed context."""

    size: int
    """Bytes in all files."""
    entries: int


class Recorder:
    """Takes entries, as `storage.Tree` does, and keeps what the manifest says of them."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._left = bounds.size
        self._seen: set[bytes] = set()
        self._entries: list[Entry] = []
        self._top: dict[bytes, bytes] = {}

    def folder(self, path: bytes) -> None:
        if path != _TOP[:-1]:
            self._entries.append(Entry("dir", self._inside(path)))

    def link(self, path: bytes, target: bytes) -> None:
        self._entries.append(Entry("link", self._inside(path), target=target))

    def file(self, path: bytes, executable: bool, content: Iterable[bytes]) -> None:
        if path in (_DOCKERFILE, _IGNORE):
            self._once(path)
            self._top[path] = self._small(content)
            return
        inside, digest, size = self._inside(path), hashlib.sha256(), 0
        for chunk in content:
            self._take(len(chunk))
            digest.update(chunk)
            size += len(chunk)
        self._entries.append(Entry("exec" if executable else "file", inside, size, digest.hexdigest()))

    def manifest(self, dockerfile: str) -> Manifest:
        """What was taken; `dockerfile` is the path that the Dockerfile had in its source."""
        if self._top.get(_IGNORE) != IGNORE_NOTHING or _DOCKERFILE not in self._top:
            raise OperatorError(
                "The packed context lacks its Dockerfile, or the ignore file that ignores nothing",
                "delete it from the context store and build again",
            )
        content = self._top[_DOCKERFILE]
        return Manifest(Dockerfile(dockerfile, hashlib.sha256(content).hexdigest(), content), tuple(self._entries))

    def _inside(self, path: bytes) -> bytes:
        """The path within the context."""
        self._once(path)
        inside = path.removeprefix(_TOP)
        if inside == path or not {b"", b".", b".."}.isdisjoint(inside.split(b"/")):
            raise UnsafePathError(f"{shown(path)} is not in the folder of the context")
        if len(self._seen) > self._bounds.entries:
            raise UserError(
                f"The context has more than {self._bounds.entries:,} entries", "leave out what is not needed"
            )
        return inside

    def _once(self, path: bytes) -> None:
        if path in self._seen:
            raise UnsafePathError(f"{shown(path)} is in it twice")
        self._seen.add(path)

    def _small(self, content: Iterable[bytes]) -> bytes:
        whole = b""
        for chunk in content:
            self._take(len(chunk))
            whole += chunk
            if len(whole) > _MAX_DOCKERFILE:
                raise UnsafePathError("its Dockerfile is too large")
        return whole

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise UserError(
                f"The context unpacks to more than {self._bounds.size:,} bytes", "leave out what is not needed"
            )
