"""What images of code alone are made from: earlier images, and what is in their layers. In Redis, or
in a folder where Redis ends with the build.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from redis import Redis

from imagemill.names import HASH_KEEP_SECONDS
from imagemill.why.record import InputRecord


class Earlier(NamedTuple):
    """An image that a builder has made."""

    image: str
    """Pinned: repository@sha256:…"""
    labels: tuple[str, ...]
    """Names of the labels that the build has given it."""
    record: InputRecord
    """What it was made from."""
    commands: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Keyword and words of each CMD and ENTRYPOINT that may be another in the next image."""


class Shelf(Protocol):
    """Where texts are kept by their names, each for `names.HASH_KEEP_SECONDS` after its last use."""

    def put(self, name: str, text: bytes) -> None: ...
    def find(self, names: Sequence[str]) -> list[bytes | None]: ...
    def remove(self, name: str) -> None: ...


class RedisShelf:
    """Keeps texts in Redis."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis, self._prefix = redis, f"{prefix}imagemill:graft:"

    def put(self, name: str, text: bytes) -> None:
        """Keep a text."""
        self._redis.set(self._prefix + name, text, ex=HASH_KEEP_SECONDS)

    def find(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the texts; None for each that is not there."""
        if not names:
            return []
        keys = [self._prefix + name for name in names]
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.mget(keys)
        for key in keys:
            pipeline.expire(key, HASH_KEEP_SECONDS)
        return cast(list[bytes | None], pipeline.execute()[0])

    def remove(self, name: str) -> None:
        """Forget a text."""
        self._redis.delete(self._prefix + name)


class FolderShelf:
    """Keeps texts in a folder of the user's own, a file each, for those whose Redis ends with the
    build.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, text: bytes) -> None:
        """Keep a text, whole or not at all, and remove those that nobody has used for too long."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(dir=self._folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
        Path(path).replace(self._path(name))
        end = time.time() - HASH_KEEP_SECONDS
        for each in os.scandir(self._folder):
            with suppress(FileNotFoundError):  # another build may have removed it
                if each.stat(follow_symlinks=False).st_mtime < end:
                    Path(each.path).unlink()

    def find(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the texts; None for each that is not there."""
        return [self._find(self._path(name)) for name in names]

    def remove(self, name: str) -> None:
        """Forget a text."""
        self._path(name).unlink(missing_ok=True)

    def _find(self, path: Path) -> bytes | None:
        try:
            os.utime(path)
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def _path(self, name: str) -> Path:
        return self._folder / hashlib.sha256(name.encode()).hexdigest()


class Grafts:
    """Key → the latest image that a builder has made of what the key names; diff id → layer.

    Each text is kept with its digest: what is damaged is as good as not there.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def _put(self, name: str, text: bytes) -> None:
        self._shelf.put(name, _digest(name, text) + text)

    def _find(self, names: Sequence[str]) -> list[bytes | None]:
        found = []
        for name, kept in zip(names, self._shelf.find(names), strict=True):
            text = b"" if kept is None else kept[_SIZE:]
            whole = kept is not None and kept[:_SIZE] == _digest(name, text)
            found.append(text if whole else None)
        return found

    def keep_image(self, key: str, image: Earlier) -> None:
        """Keep an image."""
        head = json.dumps([image.image, image.labels, image.commands]).encode()
        self._put(f"image:{key}", head + b"\n" + image.record.dump())
        self._shelf.remove(f"fact:{_refused(key)}")

    def refuse_image(self, key: str, reason: str) -> None:
        """Keep why the last image for the key is none to start from."""
        self.keep_fact(_refused(key), reason)

    def find_refusal(self, key: str) -> str | None:
        """Return why the last image for the key was none to start from."""
        return self.find_fact(_refused(key))

    def find_image(self, key: str) -> Earlier | None:
        """Return the image; None if there is none, or nobody has asked for it for too long."""
        (found,) = self._find([f"image:{key}"])
        if found is None:
            return None
        head, _, record = found.partition(b"\n")
        image, labels, commands = json.loads(head)
        known = tuple((keyword, tuple(words)) for keyword, words in commands)
        return Earlier(image, tuple(labels), InputRecord.load(record), known)

    def forget_image(self, key: str) -> None:
        """Forget an image that is not there any more."""
        self._shelf.remove(f"image:{key}")

    def keep_layer(self, diff_id: str, layer: bytes) -> None:
        """Keep what is in a layer."""
        self._put(f"layer:{diff_id}", layer)

    def find_layers(self, diff_ids: Sequence[str]) -> list[bytes | None]:
        """Return what is in these layers; None for each that nobody has read."""
        return self._find([f"layer:{diff_id}" for diff_id in diff_ids])

    def keep_fact(self, name: str, fact: str) -> None:
        """Keep something that never changes."""
        self._put(f"fact:{name}", fact.encode())

    def find_fact(self, name: str) -> str | None:
        """Return what was kept; None if nothing was."""
        (found,) = self._find([f"fact:{name}"])
        return None if found is None else found.decode()


def _refused(key: str) -> str:
    return f"refused:{key}"


_SIZE = hashlib.sha256().digest_size


def _digest(name: str, text: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + text).digest()
