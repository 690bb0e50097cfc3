"""The folder of a source that is meant, once the source is here."""

import os
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from imagemill.errors import UserError
from imagemill.files.tree import OpenFolder, open_folder_below, open_top

_MACOS = ("__MACOSX", ".DS_Store")
"""What macOS puts beside a folder that it packs; in a tar also `._FOLDER`."""


def meant(top: Path, subdirectory: str, called: str, *, unpacked: bool) -> Path:
    """Return the folder `subdirectory` of the source that lies at `top`; links are not followed.

    Where an archive was unpacked that has nothing but one folder at its top, as those of git hosts
    and `tar -czf x.tar.gz folder` have, the source begins there; `.` is its top all the same.
    `UserError`, which names the source as it is `called`, if there is no such folder.
    """
    opened = open_top(top)
    try:
        wrapping = _wrapping(opened) if unpacked else ""
        # An empty name is the top, and what is named from the archive's own top is found too.
        for path in (subdirectory or wrapping, f"{wrapping}/{subdirectory}".strip("/")):
            if not path:
                return top
            with suppress(OSError):
                return OpenFolder.of(top / path, open_folder_below(opened, os.fsencode(path)))
        raise _missing(opened, path, subdirectory, called)
    finally:
        os.close(opened)


def _wrapping(top: int) -> str:
    """Return the name of the folder that all the rest is in; empty if there is none."""
    with os.scandir(top) as entries:
        found = [entry for entry in entries if not entry.name.startswith((*_MACOS, "._"))]
    is_one = len(found) == 1 and found[0].is_dir(follow_symlinks=False)
    return found[0].name if is_one else ""


def _missing(top: int, path: str, subdirectory: str, called: str) -> UserError:
    """Return the error, with the folders that there are where the way to `path` ends."""
    within, folders = "", list(_folders(top, ""))
    for name in path.split("/"):
        if name not in folders:
            break
        within = f"{within}/{name}"
        folders = list(_folders(top, within))
    near = get_close_matches(name, folders, n=3) or sorted(folders)[:10]
    return UserError(
        f"There is no folder {subdirectory!r} in {called}",
        f"there are {', '.join(near)}" if near else "leave out subdirectory=",
    )


def _folders(top: int, path: str) -> Iterator[str]:
    opened = open_folder_below(top, os.fsencode(path))
    try:
        with os.scandir(opened) as entries:
            yield from (entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    finally:
        os.close(opened)
