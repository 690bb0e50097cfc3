"""Brings the files that lie in Git LFS in place of their pointers.

We ask the LFS server ourselves, and not by `git-lfs`: the server answers with any address and any
headers for each file, which would make a worker read what only it can reach. So files are
downloaded by the rules of archives, with no header but the credentials that the server gives.

https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md (pointers), docs/api/batch.md,
docs/api/authentication.md and docs/api/server-discovery.md.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import re2  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imagemill import http
from imagemill.errors import (
    ImagemillError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.files.tree import shown
from imagemill.place import machine
from imagemill.ports import Progress
from imagemill.sources.git.command import Git
from imagemill.sources.git.url import Remote
from imagemill.sources.options import SourceOptions
from imagemill.sources.reach import reach
from imagemill.text import one_line
from imagemill.time_limits import time_limit

_BATCH = 100
"""Files that are asked for at a time, as many as servers take."""

_CHUNK = 1 << 18
_POINTER_BYTES = 1024  # at most
_POINTER = re2.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*"
    rb"oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n"
)
_TYPE = "application/vnd.git-lfs+json"
_SSH_SECONDS = 30.0
_PUSH_THEM = (
    "push them (git lfs push --all); only the LFS server at the repository's own URL is asked"
)
_Header = Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,8192}$")]


class _Model(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)


class _Action(_Model):
    href: str
    header: dict[str, Any] = {}


class _Fault(_Model):
    code: int = 0
    message: str = ""


class _Object(_Model):
    oid: str
    actions: dict[str, _Action] = {}
    error: _Fault | None = None


class _Answer(_Model):
    objects: list[_Object]


class _Server(_Model):
    """Where an LFS server is, and what it is told with each request."""

    href: str
    header: dict[str, _Header] = {}


@dataclass(frozen=True)
class _Pointer:
    oid: str
    size: int


def bring(git: Git, remote: Remote, options: SourceOptions, tree: Path, progress: Progress) -> None:
    """Put the files in `tree` for whose pointers git's attributes say `filter=lfs`.

    `tree` is what git has checked out last. `UserError` if a file is not there or is not what its
    pointer says, `PermissionDenied` if the worker may not read it.
    """
    pointers = _pointers(git, tree)
    if not pointers:
        return
    progress.log(f"Fetching {len(pointers)} files of {remote} from Git LFS")
    if remote.scheme == "file":
        source: _Source = _Folder(remote)
    else:
        source = _Lfs(remote, options, progress, _server(git, remote))
    wanted = sorted(pointers, key=lambda pointer: pointer.oid)
    for start in range(0, len(wanted), _BATCH):
        for pointer, chunks in source.contents(wanted[start : start + _BATCH]):
            first, *others = pointers[pointer]
            _write(tree / first, pointer, chunks, git, remote)
            for other in others:
                shutil.copyfile(tree / first, tree / other)


def _pointers(git: Git, tree: Path) -> dict[_Pointer, list[Path]]:
    """Return the pointers in the tree, and the paths of the files that they stand for."""
    found = {path: pointer for path in _small(tree) if (pointer := _pointer(tree / path))}
    names = b"".join(os.fsencode(path) + b"\0" for path in found)
    answer = git.output("check-attr", "-z", "--cached", "--stdin", "filter", stdin=names)
    values = answer.split(b"\0")
    tracked: dict[_Pointer, list[Path]] = {}
    for name, value in zip(values[::3], values[2::3], strict=False):
        if value == b"lfs":
            path = Path(os.fsdecode(name))
            tracked.setdefault(found[path], []).append(path)
    return tracked


def _small(tree: Path) -> Iterator[Path]:
    """Yield the files, by their paths in the tree, that are small enough for a pointer."""
    folders = [tree]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif (
                    entry.is_file(follow_symlinks=False)
                    and entry.stat(follow_symlinks=False).st_size < _POINTER_BYTES
                ):
                    yield Path(entry.path).relative_to(tree)


def _pointer(path: Path) -> _Pointer | None:
    match = _POINTER.fullmatch(path.read_bytes())
    return _Pointer(match[1].decode(), int(match[2])) if match else None


def _write(
    path: Path, pointer: _Pointer, chunks: Iterator[bytes], git: Git, remote: Remote
) -> None:
    """Fill the file, which keeps its mode; what came is not told if it is not what was meant."""
    sha256, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for chunk in chunks:
            size += len(chunk)
            if size > pointer.size:
                break
            sha256.update(chunk)
            file.write(chunk)
            git.check()
    if size != pointer.size or sha256.hexdigest() != pointer.oid:
        raise UserError(
            f"Files of {remote} that lie in Git LFS could not be had: what the server has for"
            f" {shown(os.fsencode(path.name))} is not what its pointer says",
            "push it again (git lfs push --all)",
        )


class _Source:
    """Where the contents come from."""

    def contents(self, wanted: Sequence[_Pointer]) -> Iterator[tuple[_Pointer, Iterator[bytes]]]:
        """Yield each with its bytes, as they come."""
        raise NotImplementedError


class _Folder(_Source):
    """A repository in a folder, which has them itself."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        top = Path(os.path.realpath(remote.path))
        self._top = top / ".git" if (top / ".git").is_dir() else top

    def contents(self, wanted: Sequence[_Pointer]) -> Iterator[tuple[_Pointer, Iterator[bytes]]]:
        for pointer in wanted:
            oid = pointer.oid
            path = self._top / "lfs/objects" / oid[:2] / oid[2:4] / oid
            if os.path.realpath(path) != str(path) or not path.is_file():
                raise _missing(self._remote, f"it has no {oid}")
            with path.open("rb") as file:
                yield pointer, iter(partial(file.read, _CHUNK), b"")


class _Lfs(_Source):
    """An LFS server."""

    def __init__(
        self, remote: Remote, options: SourceOptions, progress: Progress, server: _Server
    ) -> None:
        self._remote, self._progress, self._server = remote, progress, server
        own = http.address_of(server.href)
        is_remotes = own.rpartition(":")[0] == remote.host
        self._reach = reach(options, own if is_remotes else None)

    def contents(self, wanted: Sequence[_Pointer]) -> Iterator[tuple[_Pointer, Iterator[bytes]]]:
        actions = self._actions(wanted)
        for pointer in wanted:
            action = actions[pointer.oid]
            self._progress.check()
            reach = http.leads("GET", self._server.href, action.href, self._reach, self._reach)
            with (
                time_limit(self._progress.remaining()),
                http.opened("GET", action.href, self._headers(action), reach=reach) as reply,
            ):
                if reply.status != 200:
                    raise self._failure(reply.status, reply.url, reply.retry_after)
                yield pointer, reply.chunks(_CHUNK)

    def _actions(self, wanted: Sequence[_Pointer]) -> Mapping[str, _Action]:
        """Return what is to be done for each file, by its id."""
        body = {
            "operation": "download",
            "transfers": ["basic"],
            "objects": [{"oid": pointer.oid, "size": pointer.size} for pointer in wanted],
        }
        headers = {"Accept": _TYPE, "Content-Type": _TYPE, **self._server.header}
        answer = http.request(
            "POST",
            f"{self._server.href}/objects/batch",
            headers,
            json.dumps(body).encode(),
            self._reach,
        )
        if answer.status != 200:
            raise self._failure(answer.status, answer.url, answer.retry_after)
        try:
            objects = {each.oid: each for each in _Answer.model_validate_json(answer.body).objects}
        except ValidationError:
            host = http.host_of(answer.url)
            raise _missing(self._remote, f"{host} does not answer as an LFS server does") from None
        return {pointer.oid: self._action(objects.get(pointer.oid)) for pointer in wanted}

    def _action(self, answered: _Object | None) -> _Action:
        action = answered.actions.get("download") if answered else None
        if action and http.is_url(action.href) and "@" not in http.origin(action.href)[1]:
            return action
        fault = answered.error if answered and answered.error else _Fault()
        said = one_line(f"{fault.code or ''} {fault.message}".strip() or "it names no file")
        raise _missing(self._remote, f"{http.host_of(self._server.href)} answers {said}")

    def _headers(self, action: _Action) -> dict[str, str]:
        """Return the credentials for a file: what the server says, or those that itself got."""
        given = next(
            (value for name, value in action.header.items() if name.lower() == "authorization"), ""
        )
        try:
            header = _Server(href="", header={"Authorization": given} if given else {}).header
        except ValidationError:
            raise _missing(self._remote, "the server gives credentials that cannot be") from None
        own = http.origin(action.href) == http.origin(self._server.href)
        return {"Connection": "close", **(self._server.header if own else {}), **header}

    def _failure(self, status: int, url: str, wait: float | None) -> ImagemillError:
        said = f"{http.host_of(url)} answers {status}"
        if status in (401, 403):
            return PermissionDenied(
                f"Files of {self._remote} that lie in Git LFS could not be had: {said}",
                f"let {machine()}'s credentials for the host read LFS files, too",
            )
        if status == 429 or status >= 500:
            told = f"Files of {self._remote} that lie in Git LFS cannot be had now: {said}"
            return ServiceUnreachable(told, "see whether it is healthy", wait)
        return _missing(self._remote, said)


def _missing(remote: Remote, said: str) -> UserError:
    return UserError(f"Files of {remote} that lie in Git LFS could not be had: {said}", _PUSH_THEM)


def _server(git: Git, remote: Remote) -> _Server:
    """Return the LFS server of a repository: below its own URL, since `.lfsconfig` in it could name
    any.
    """
    if remote.scheme == "ssh":
        return _by_ssh(git, remote)
    scheme = "http" if remote.scheme == "http" else "https"
    path = remote.path if remote.path.endswith(".git") else f"{remote.path}.git"
    href = f"{scheme}://{remote.address}{quote(path)}/info/lfs"
    return _Server(href=href, header=git.login())


def _by_ssh(git: Git, remote: Remote) -> _Server:
    """Return the LFS server that the host names to whom it lets in by ssh, with a token for it."""
    command = shlex.split(git.environment["GIT_SSH_COMMAND"])
    if remote.port:
        command += ["-p", str(remote.port)]
    user = f"{remote.user}@" if remote.user else ""
    command += ["--", f"{user}{remote.host.strip('[]')}"]
    command += [f"git-lfs-authenticate {shlex.quote(remote.path)} download"]
    try:
        done = subprocess.run(
            command, env=git.environment, capture_output=True, timeout=_SSH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise TransientError(f"{remote.address} does not name its LFS server in time") from None
    try:
        server = _Server.model_validate_json(done.stdout[: http.BODY_LIMIT])
    except ValidationError:
        server = _Server(href="")
    if done.returncode or not server.href.startswith("https://") or not http.is_url(server.href):
        raise _missing(remote, f"{remote.address} names no LFS server by ssh")
    return server
