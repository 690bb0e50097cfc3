"""A repository in a folder of this node, copied before git reads it.

Whoever may write below a root may make a repository that leads out of it: by a `.git` file, by
alternates, by links. git would follow them all. So what is read of it is copied, name by name from
the root and through no link, to where only the worker writes, and git reads the copy.
"""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Protocol

from imagemill.errors import PermissionDenied, UserError
from imagemill.files.tree import open_below, open_file, open_folder, open_folder_below
from imagemill.place import machine
from imagemill.sources.git.url import Remote
from imagemill.sources.options import SourceOptions

_FILES = ("HEAD", "packed-refs", "shallow")
_FOLDERS = ("refs", "objects")
_ELSEWHERE = ("objects/info/alternates", "objects/info/http-alternates", "commondir")
"""Files by which a repository is another one in part."""

_CHUNK = 1 << 20
_REF_BYTES = 1 << 20
"""Of a file that says which commits there are, as far as it is read here."""

_SHA256 = re.compile(r"^[0-9a-f]{64}\b", re.MULTILINE)


class Check(Protocol):
    """Whether to go on."""

    def check(self) -> None: ...


def mirror(remote: Remote, options: SourceOptions, folder: Path, progress: Check) -> Remote:
    """Return the remote of a copy of the repository in the new `folder`; the remote itself where
    the worker may read all of this node anyway.

    `PermissionDenied` if the repository leads elsewhere.
    """
    path = Path(os.path.realpath(remote.path))
    if remote.scheme == "file" and options.check_place:
        # A link may lead elsewhere than when the policy was asked.
        options.check_place(replace(remote, path=str(path)).place)
    roots = [Path(os.path.realpath(root)) for root in options.roots]
    if remote.scheme != "file" or Path("/") in roots:
        return remote
    top = next((root for root in roots if path.is_relative_to(root)), None)
    if top is None:
        raise _leads_out(remote, "its path")
    opened = open_folder(os.fsencode(top))
    try:
        repository = _repository(opened, os.fsencode(path.relative_to(top)), remote)
    finally:
        os.close(opened)
    try:
        _copy_all(repository, remote, folder, progress)
    finally:
        os.close(repository)
    return replace(remote, path=str(folder))


def _repository(top: int, inside: bytes, remote: Remote) -> int:
    """Return the repository's own folder, opened: `.git` in a checkout."""
    try:
        folder = open_folder_below(top, inside)
    except OSError:
        raise UserError(
            f"There is no repository at {remote}",
            "check the spelling: it is the folder of a repository",
        ) from None
    try:
        os.stat(b".git", dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return folder  # a bare one
    try:
        return open_folder(b".git", folder)
    except OSError:
        raise _leads_out(remote, "its .git, which is no folder,") from None
    finally:
        os.close(folder)


def _copy_all(repository: int, remote: Remote, folder: Path, progress: Check) -> None:
    folder.mkdir()
    for path in _ELSEWHERE:
        try:
            open_below(repository, path.encode()).close()
        except FileNotFoundError:
            continue
        raise _leads_out(remote, path)
    known = ""
    for name in _FILES:
        try:
            with open_below(repository, name.encode()) as file:
                _copy_file(file, folder / name, progress)
        except FileNotFoundError:
            continue
        known += _beginning(folder / name) + "\n"
    for name in _FOLDERS:
        try:
            opened = open_folder(name.encode(), repository)
        except OSError:
            raise UserError(
                f"There is no repository at {remote}",
                "check the spelling: it is the folder of a repository",
            ) from None
        try:
            _copy(opened, folder / name, remote, progress)
        finally:
            os.close(opened)
    refs = "\n".join(_beginning(path) for path in (folder / "refs").rglob("*/*") if path.is_file())
    _write_config(folder, sha256=_SHA256.search(f"{known}\n{refs}") is not None)


def _beginning(path: Path) -> str:
    with path.open(errors="replace") as file:
        return file.read(_REF_BYTES)


def _write_config(folder: Path, *, sha256: bool) -> None:
    extension = "[extensions]\n\tobjectFormat = sha256\n" if sha256 else ""
    version = f"[core]\n\trepositoryformatversion = {int(sha256)}\n\tbare = true\n"
    (folder / "config").write_text(version + extension)


def _copy(source: int, target: Path, remote: Remote, progress: Check) -> None:
    """Copy what is in an open folder; a link in it is refused."""
    target.mkdir()
    with os.scandir(source) as entries:
        names = [
            (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False), entry.is_symlink())
            for entry in entries
        ]
    for name, is_folder, is_link in names:
        progress.check()
        place = target / os.fsdecode(name)
        if is_link:
            raise _leads_out(remote, f"a link in it, {os.fsdecode(name)!r},")
        try:
            opened = open_folder(name, source) if is_folder else open_file(name, source)
        except OSError:
            raise _leads_out(remote, f"{os.fsdecode(name)!r} in it") from None
        if is_folder:
            try:
                _copy(opened, place, remote, progress)
            finally:
                os.close(opened)
        else:
            with os.fdopen(opened, "rb") as file:
                _copy_file(file, place, progress)


def _copy_file(file: BinaryIO, target: Path, progress: Check) -> None:
    """Copy a regular file; a large one is looked at while it grows."""
    with target.open("wb") as out:
        while chunk := file.read(_CHUNK):
            out.write(chunk)
            progress.check()


def _leads_out(remote: Remote, what: str) -> PermissionDenied:
    return PermissionDenied(
        f"{machine().capitalize()} does not read {remote}: {what} may lead out of the folders that it may read",
        "clone it there with all of its objects (git clone --no-local --dissociate), or name a"
        " repository on a server",
    )
