"""Makes source folders for tests."""

import os
from collections.abc import Mapping
from pathlib import Path

DOCKERFILE = "FROM scratch\nCOPY . /context/\n"


def make(top: Path, entries: Mapping[str | bytes, str | bytes | None]) -> Path:
    """Create what `entries` says, path → content, below `top`, and return that.

    A path that ends with `/` is a folder, whatever its content; one that ends with `@` a symbolic link to its
    content, one that ends with `*` an executable file.
    """
    top.mkdir(parents=True, exist_ok=True)
    for path, content in entries.items():
        _make_entry(os.path.join(os.fsencode(top), os.fsencode(path)), os.fsencode(content or b""))  # noqa: PTH118
    return top


def _make_entry(path: bytes, content: bytes) -> None:
    kind, name = path[-1:], path[:-1]
    if kind == b"/":
        os.makedirs(name, exist_ok=True)
        return
    if kind not in (b"@", b"*"):
        kind, name = b"", path
    os.makedirs(os.path.dirname(name), exist_ok=True)  # noqa: PTH103, PTH120
    if kind == b"@":
        os.symlink(content, name)
        return
    with open(name, "wb") as file:  # noqa: PTH123
        file.write(content)
    if kind == b"*":
        os.chmod(name, 0o755)  # noqa: PTH101
