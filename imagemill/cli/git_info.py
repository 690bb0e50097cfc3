"""What git knows of a source: which revision it is, and where it is published."""

import subprocess
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

_SECONDS = 10.0
_PUBLIC = ("https", "http", "ssh", "git")


class GitInfo(NamedTuple):
    """A revision, and the URL of the repository; `None` where it is not known."""

    revision: str | None = None
    url: str | None = None


def checkout(source: Path) -> GitInfo:
    """What is known of `source`, if it lies in a checkout in which it has not been changed; else
    nothing.
    """
    try:
        # HEAD:./ is this folder in HEAD: it fails for a folder that the repository around it does
        # not hold.
        known = _git(source, "rev-parse", "HEAD", "HEAD:./").split()
        if _git(source, "status", "--porcelain", "--", "."):
            return GitInfo()
    except (OSError, subprocess.SubprocessError):
        return GitInfo()
    return GitInfo(known[0], _origin(source))


def _origin(source: Path) -> str | None:
    try:
        return published(_git(source, "remote", "get-url", "origin").strip())
    except subprocess.SubprocessError:
        return None


def published(remote: str) -> str | None:
    """The URL of a remote without user, password, query and fragment; None if it is not one that
    others could use.
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


def _git(folder: Path, *arguments: str) -> str:
    """What git prints; `SubprocessError` if it fails. Nothing that the checkout's own config names
    is run.
    """
    command = [
        "git",
        "-c",
        "core.fsmonitor=false",
        "--no-optional-locks",
        "-C",
        str(folder),
        *arguments,
    ]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
        check=True,
    ).stdout
