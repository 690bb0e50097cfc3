"""What git knows of a source: which revision it is, and where it is published.

A folder may come from anybody, with a `.git/config` that names programs: filters, hooks, monitors.
So git is never run in the checkout: it gets a git folder of our own, with the checkout's objects, a
copy of its index and nothing of its config.
"""

import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from imagemill.environment import everything

_SECONDS = 10.0
_PUBLIC = ("https", "http", "ssh", "git")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MAX_REFERENCES = 5
"""How often a ref may name another one."""


class GitInfo(NamedTuple):
    """A revision, and the URL of the repository; `None` where it is not known."""

    revision: str | None = None
    url: str | None = None


class _Repository(NamedTuple):
    top: Path
    """Of the files."""
    own: Path
    """Where HEAD and the index are: another place than `common` for a worktree."""
    common: Path
    """Where objects, refs and the config are."""


def checkout(source: Path) -> GitInfo:
    """Return what is known of `source`, if it lies in a checkout in which it has not been changed;
    else nothing.
    """
    try:
        found = _repository(source.resolve())
        if found is None or (commit := _head(found)) is None:
            return GitInfo()
        with tempfile.TemporaryDirectory(prefix="imagemill-") as folder:
            if not _is_unchanged(source.resolve(), found, commit, Path(folder)):
                return GitInfo()
            return GitInfo(commit, _origin(found))
    except (OSError, ValueError, subprocess.SubprocessError):
        return GitInfo()


def _repository(source: Path) -> _Repository | None:
    """Return the nearest repository around a folder."""
    for top in (source, *source.parents):
        git = top / ".git"
        if git.is_file():  # of a worktree or a submodule
            git = top / git.read_text().removeprefix("gitdir:").strip()
        if (git / "HEAD").is_file():
            link = git / "commondir"
            common = git / link.read_text().strip() if link.is_file() else git
            return _Repository(top, git, common)
    return None


def _head(found: _Repository) -> str | None:
    """Return the commit that is checked out; None if there is none yet, or refs are kept otherwise."""
    text = (found.own / "HEAD").read_text().strip()
    for _ in range(_MAX_REFERENCES):
        if _COMMIT.fullmatch(text):
            return text
        name = text.removeprefix("ref:").strip()
        if not name.startswith("refs/") or ".." in name:
            return None
        loose = [folder / name for folder in (found.own, found.common)]
        text = next((path.read_text().strip() for path in loose if path.is_file()), "")
        text = text or _packed(found.common / "packed-refs", name)
    return None


def _packed(path: Path, name: str) -> str:
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split()[0] for line in lines if line.split()[1:] == [name]), "")


def _is_unchanged(source: Path, found: _Repository, commit: str, git: Path) -> bool:
    """Whether the files in `source` are those of the commit, as far as git sees without the
    checkout's own config; `git` is an empty folder.
    """
    (git / "HEAD").write_text(f"{commit}\n")
    (git / "refs").mkdir()
    kind = "[extensions]\n\tobjectFormat = sha256\n" if len(commit) == 64 else ""
    (git / "config").write_text(f"[core]\n\trepositoryformatversion = {int(bool(kind))}\n{kind}")
    shutil.copy2(found.own / "index", git / "index")
    with suppress(FileNotFoundError):
        (git / "info").mkdir()
        shutil.copy2(found.common / "info" / "exclude", git / "info" / "exclude")
    within = source.relative_to(found.top).as_posix().removeprefix(".")
    # Fails for a folder that the repository around it does not hold.
    listed = _git(git, found, "ls-tree", "-r", "-z", "--full-tree", f"{commit}:{within}")
    if any(entry.startswith("160000") for entry in listed.split("\0")):
        return False  # git would run in the submodules, by their own configs
    status = ("status", "--porcelain", "--ignore-submodules=all", "--", within or ".")
    return not _git(git, found, *status)


def _origin(found: _Repository) -> str | None:
    try:
        command = ("git", "config", "--file", str(found.common / "config"), "remote.origin.url")
        return published(_output(command, {}).strip())
    except subprocess.SubprocessError:
        return None


def published(remote: str) -> str | None:
    """Return the URL of a remote without user, password, query and fragment; None if it is not one
    that others could use.
    """
    if "://" in remote:
        parts = urlsplit(remote)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}" if parts.scheme in _PUBLIC else None
    # What ssh and scp know as user@host:path; a colon behind a slash is a part of a local path.
    server, colon, path = remote.partition(":")
    return (
        f"ssh://{server.rpartition('@')[2]}/{path.lstrip('/')}"
        if colon and "/" not in server
        else None
    )


def _git(git: Path, found: _Repository, *arguments: str) -> str:
    """Return what git prints of the repository, by the git folder of ours; `SubprocessError` if it
    fails.
    """
    variables = {
        "GIT_DIR": str(git),
        "GIT_WORK_TREE": str(found.top),
        "GIT_OBJECT_DIRECTORY": str((found.common / "objects").resolve()),
        "GIT_OPTIONAL_LOCKS": "0",
    }
    command = ("git", "-c", "core.fsmonitor=false", "-C", str(found.top), *arguments)
    return _output(command, variables)


def _output(command: tuple[str, ...], variables: dict[str, str]) -> str:
    environment = {k: v for k, v in everything().items() if not k.startswith("GIT_")} | variables
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
        check=True,
        env=environment,
    ).stdout
