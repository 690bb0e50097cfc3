"""Brings one commit of a git repository into a folder, with what belongs to it, and nothing else of
the repository.

A commit is fetched alone, without its history, and for a folder only with the files that are in it,
where the server can do that. git could fetch missing files by itself when it comes to need them; it
is kept from that, since a server can make it do so without end.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from imagemill.errors import UserError
from imagemill.files.tree import Tree, UnsafePathError, shown
from imagemill.ports import Progress
from imagemill.sources.git import lfs
from imagemill.sources.git.command import ALL_REFS, Git, opened
from imagemill.sources.git.failures import NotServedAloneError
from imagemill.sources.git.url import Remote, submodule_remote
from imagemill.sources.options import SourceOptions

_MAX_DEPTH = 16
"""How deep submodules may be nested."""

_GLOB, _ESCAPED = re.compile(r"[\\*?\[\] ]"), r"\\\g<0>"


class _Way(Enum):
    """How a commit is fetched, the best way first. A server that refuses one is asked for the
    next.
    """

    FILES = "the commit alone, and then the files that are needed"
    COMMIT = "the commit alone, with all files"
    HISTORY = "all branches and tags"


@dataclass
class _Listing:
    """What a commit holds, read as it is listed by `git ls-tree -r -z`."""

    remote: Remote
    folder: bytes
    """The one that is wanted; empty for the top."""
    most: int
    submodules: dict[bytes, str] = field(default_factory=dict)
    """Path → commit."""
    folders: set[bytes] = field(default_factory=set)
    """Those that files are in."""
    files: set[str] = field(default_factory=set)
    """The objects that the folder's files are in, and those that say how they are to be written."""
    has_modules: bool = False
    """Whether there is a `.gitmodules`."""
    _count: int = 0
    _rest: bytes = b""

    def read(self, chunk: bytes) -> None:
        """Take some more of it. It is counted as it comes, since small trees can hold each other by
        the billion.
        """
        *entries, self._rest = (self._rest + chunk).split(b"\0")
        self._count += len(entries)
        if self._count > self.most:
            raise UserError(
                f"The commit of {self.remote} has more than {self.most:,} files",
                "build from a repository with fewer, or have the operator raise IMAGEMILL_SOURCE_MAX_FILES",
            )
        for entry in entries:
            head, _, path = entry.partition(b"\t")
            mode, _, name = head.split(b" ")
            self._take(mode, name.decode(), path)

    def _take(self, mode: bytes, name: str, path: bytes) -> None:
        folder, _, last = path.rpartition(b"/")
        self.folders.add(folder)
        if mode == b"160000":
            self.submodules[path] = name
            return
        self.has_modules = self.has_modules or (path == b".gitmodules" and mode != b"120000")
        says_how = path == b".gitmodules" or (
            last == b".gitattributes" and _is_in(self.folder, folder)
        )
        if says_how or _is_in(path, self.folder):
            self.files.add(name)

    def check(self, submodules: bool) -> None:
        """`UserError` if there is no such folder: a link to one is none, and what submodules hold
        is not seen here.
        """
        if not self.folder or any(_is_in(path, self.folder) for path in self.folders):
            return
        if any(_is_in(self.folder, path) for path in self.submodules):
            if submodules:
                return
            raise UserError(
                f"{shown(self.folder)} in {self.remote} is in a submodule",
                "ask for it: &submodules=true",
            )
        near = get_close_matches(shown(self.folder), map(shown, self.folders - {b""}), n=3)
        raise UserError(
            f"There is no folder {shown(self.folder)!r} in {self.remote}",
            f"did you mean {' or '.join(near)}?"
            if near
            else "subdirectory=FOLDER is a path from the repository's top",
        )


def _is_in(path: bytes, folder: bytes) -> bool:
    return not folder or path == folder or path.startswith(folder + b"/")


class _Submodule(NamedTuple):
    path: bytes
    remote: Remote
    commit: str
    subdirectory: str
    """What of it is needed; empty for all."""


@dataclass(frozen=True)
class Checkout:
    """Brings a commit of a repository at `address`, and what belongs to it, into a folder.

    A repository chooses freely what its submodules are: those on another host are read as anybody
    could read them.
    """

    address: str
    options: SourceOptions
    progress: Progress
    scratch: Path
    """All that is written is below it, and counts together."""
    submodules: bool
    lfs: bool

    def bring(
        self, remote: Remote, commit: str, subdirectory: str, tree: Path, depth: int = 0
    ) -> None:
        """Fill the empty folder `tree` with the files of the commit that are in `subdirectory`, or
        with all.
        """
        if depth > _MAX_DEPTH:
            raise UserError(
                f"Submodules are nested deeper than {_MAX_DEPTH}, down to {remote}",
                "leave out some of them",
            )
        self.progress.log(f"Fetching {commit[:12]} of {remote}")
        for module in self._bring_itself(remote, commit, subdirectory, tree):
            with _refusing(remote, module.path), Tree(tree) as made:
                made.folder(module.path)
            folder = tree / os.fsdecode(module.path)
            self.bring(module.remote, module.commit, module.subdirectory, folder, depth + 1)

    def _bring_itself(
        self, remote: Remote, commit: str, subdirectory: str, tree: Path
    ) -> list[_Submodule]:
        """As `bring`, but for the submodules, which are returned."""
        for way in (_Way.FILES, _Way.COMMIT) if subdirectory else (_Way.COMMIT,):
            try:
                return self._bring_by(way, remote, commit, subdirectory, tree)
            except NotServedAloneError:
                shutil.rmtree(tree)
                tree.mkdir()
        self.progress.log(f"{remote.address} gives no commit alone: fetching all of the repository")
        return self._bring_by(_Way.HISTORY, remote, commit, subdirectory, tree)

    def _bring_by(
        self, way: _Way, remote: Remote, commit: str, subdirectory: str, tree: Path
    ) -> list[_Submodule]:
        with opened(
            remote,
            self._options_for(remote),
            self.scratch,
            self.progress,
            measured=self.scratch,
        ) as git:
            _fetch(git, remote, commit, way)
            listing = _Listing(remote, os.fsencode(subdirectory), self.options.max_files)
            git.run("ls-tree", "-r", "-z", "--full-tree", commit, read=listing.read)
            listing.check(self.submodules)
            if way is _Way.FILES:
                # A server without filters has sent all of them already.
                found = git.output("cat-file", "--batch-check", stdin=sorted(listing.files))
                missing = [
                    line.removesuffix(" missing")
                    for line in found.decode().splitlines()
                    if line.endswith(" missing")
                ]
                if missing:
                    git.fetch("--no-write-fetch-head", wanted=missing)
            # A sparse checkout, since attributes above a folder hold for it.
            if subdirectory:
                patterns = git.repository / "info" / "sparse-checkout"
                patterns.parent.mkdir(exist_ok=True)
                patterns.write_text(f"/{_GLOB.sub(_ESCAPED, subdirectory)}/\n")
            git.check_out(commit, tree, sparse=bool(subdirectory))
            if self.lfs:
                lfs.bring(git, remote, self._options_for(remote), tree, self.progress)
            return list(self._submodules(git, commit, listing)) if self.submodules else []

    def _options_for(self, remote: Remote) -> SourceOptions:
        own = remote.address == self.address
        if own or {remote.host, remote.address} & self.options.submodule_hosts:
            return self.options
        return replace(self.options, anonymous=True)

    def _submodules(self, git: Git, commit: str, listing: _Listing) -> Iterator[_Submodule]:
        """Yield what else is needed, and where it comes from by `.gitmodules` (gitmodules(5))."""
        modules = _modules(git, commit) if listing.has_modules else {}
        for path, module_commit in listing.submodules.items():
            module, around = modules.get(path, {}), _is_in(listing.folder, path)
            if not around and not _is_in(path, listing.folder):
                continue
            if not around and module.get(b"update") == b"none":
                self.progress.log(f"Leaving out the submodule {shown(path)}, as .gitmodules says")
                continue
            with _refusing(listing.remote, path):
                remote = submodule_remote(
                    listing.remote, module.get(b"url", b"").decode(errors="replace")
                )
            if self.options.check_place:
                self.options.check_place(remote.place)
            below = listing.folder[len(path) + 1 :] if around else b""
            yield _Submodule(path, remote, module_commit, os.fsdecode(below))


@contextmanager
def _refusing(remote: Remote, path: bytes) -> Iterator[None]:
    """Say of which submodule an error is."""
    try:
        yield
    except (UserError, UnsafePathError) as error:
        message, hint = (
            (error.message, error.hint) if isinstance(error, UserError) else (str(error), "")
        )
        raise UserError(
            f"The submodule {shown(path)} of {remote} is refused: {message}", hint
        ) from None


def _modules(git: Git, commit: str) -> dict[bytes, dict[bytes, bytes]]:
    """Path of each submodule → what else `.gitmodules` says of it. Nothing is included from
    elsewhere.
    """
    sections: dict[bytes, dict[bytes, bytes]] = {}
    for entry in git.output("config", "--blob", f"{commit}:.gitmodules", "-z", "--list").split(
        b"\0"
    ):
        name, _, value = entry.partition(b"\n")
        section, _, key = name.rpartition(b".")
        if section.startswith(b"submodule."):
            sections.setdefault(section, {})[key] = value
    return {section[b"path"]: section for section in sections.values() if b"path" in section}


def _fetch(git: Git, remote: Remote, commit: str, way: _Way) -> None:
    """Have the commit in the repository; `NotServedAloneError` if the server does not go that
    way.
    """
    git.init("sha256" if len(commit) == 64 else "sha1")
    if way is _Way.HISTORY:
        git.fetch(wanted=ALL_REFS)
    else:
        filters = ["--filter=blob:none"] if way is _Way.FILES else []
        git.fetch("--depth=1", *filters, wanted=[commit])
    if way is _Way.FILES:  # git notes there that it may fetch what is missing by itself
        git.run("config", "--remove-section", "remote.origin")
    kind = git.output("cat-file", "-t", commit).decode().strip()
    if kind != "commit":
        raise UserError(
            f"{commit} in {remote} is no commit but a {kind}",
            "name the commit itself, or the tag's name",
        )
