"""Makes source folders for tests."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCKERFILE = "FROM scratch\nCOPY . /context/\n"


def make(top: Path, entries: Mapping[Any, str | bytes | None]) -> Path:
    """Create what `entries` says, path → content, both text or bytes, below `top`, and return that.

    A path that ends with `/` is a folder, whatever its content; one that ends with `@` a symbolic
    link to its content, one that ends with `*` an executable file.
    """
    top.mkdir(parents=True, exist_ok=True)
    for path, content in entries.items():
        _make_entry(top, os.fsdecode(path), os.fsencode(content or b""))
    return top


def _make_entry(top: Path, path: str, content: bytes) -> None:
    entry = top / path.rstrip("/@*")
    if path.endswith("/"):
        entry.mkdir(parents=True, exist_ok=True)
        return
    entry.parent.mkdir(parents=True, exist_ok=True)
    if path.endswith("@"):
        entry.symlink_to(os.fsdecode(content))
        return
    entry.write_bytes(content)
    if path.endswith("*"):
        entry.chmod(0o755)
