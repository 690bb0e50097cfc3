"""A git repository: one commit of it, of the whole or of one folder.

A ref is resolved once, by `pinned`, and all that follows is of that commit, on whichever worker.
"""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from imagemill.errors import UserError
from imagemill.files.tree import room
from imagemill.ports import Progress
from imagemill.reference import ImageReference
from imagemill.sources.git.checkout import Checkout
from imagemill.sources.git.command import ALL_REFS, Git, opened
from imagemill.sources.git.failures import NotServedAloneError
from imagemill.sources.git.url import GitUrl, parse
from imagemill.sources.options import SourceOptions

_MAX_LIST = 256 << 20
"""Bytes that a list of refs may have: some millions of them."""

_COMMITS_ONLY = ("--filter=tree:0", "--depth=2147483647")
"""All commits, and nothing of what is in them. The depth is git's word for all of it, and keeps
servers out that know nothing of git: from those it would fetch objects one by one, each with a git
of its own."""


class GitSource:
    """A commit of a git repository, in the spelling of `imagemill.sources.git.source.url`."""

    image: ImageReference | None = None

    def __init__(self, text: str, options: SourceOptions) -> None:
        self.url: GitUrl = parse(text)
        self._options = options

    @property
    def place(self) -> str:
        return self.url.remote.place

    def pinned(self, progress: Progress) -> str:
        """Return the canonical text of the source with the full commit that its ref is now: one
        `ls-remote`.

        A short commit needs a fetch besides, of all commits without their files, since servers do
        not list them. A text that names a full commit asks nobody. `UserError` if there is no such
        ref, `PermissionDenied` or `ServiceUnreachable` if that could not be seen.
        """
        if self.url.commit:
            return str(self.url)
        with opened(self.url.remote, self._options, self._options.scratch, progress) as git:
            refs = _Refs.of(git, self.url)
        commit = refs.commit(progress) or self._written_out(refs.object_format, progress)
        return str(self.url.at(commit or refs.missing()))

    def fetch(self, scratch: Path, progress: Progress) -> Path:
        """Return the files of the commit, in a folder of its own below `scratch`.

        Submodules and LFS files are among them if the source asks for them; else there are empty
        folders and pointers in their place, as after `git clone`. `UserError` also if the
        repository takes more than the worker allows.
        """
        url = parse(self.pinned(progress))
        with room(scratch):
            scratch.mkdir(exist_ok=True)
            tree = Path(tempfile.mkdtemp(prefix="source-", dir=scratch))
            checkout = Checkout(
                url.remote.address, self._options, progress, scratch, url.submodules, url.lfs
            )
            checkout.bring(url.remote, url.ref, url.subdirectory, tree)
        return tree / url.subdirectory

    def _written_out(self, object_format: str, progress: Progress) -> str | None:
        """Return the full commit that a short one means; None if it is none. Only branches and tags
        are looked through.
        """
        if not self.url.may_be_short:
            return None
        try:
            return self._found_among(_COMMITS_ONLY, object_format, progress)
        except NotServedAloneError:
            return self._found_among((), object_format, progress)

    def _found_among(
        self, options: Sequence[str], object_format: str, progress: Progress
    ) -> str | None:
        with opened(self.url.remote, self._options, self._options.scratch, progress) as git:
            git.init(object_format)
            git.fetch(*options, wanted=ALL_REFS)
            objects = git.output("rev-parse", f"--disambiguate={self.url.ref}").decode().split()
            commits = [
                name for name in objects if git.output("cat-file", "-t", name) == b"commit\n"
            ]
        if len(commits) > 1:
            raise UserError(
                f"Several commits in {self.url.remote} begin with {self.url.ref}: {', '.join(commits[:5])}",
                "write more of its digits",
            )
        return commits[0] if commits else None


@dataclass(frozen=True)
class _Refs:
    """What a server says that a repository has: name of a ref → commit."""

    url: GitUrl
    found: dict[str, str]

    @classmethod
    def of(cls, git: Git, url: GitUrl) -> "_Refs":
        """Ask the server. Branches and tags suffice in most cases; forges have far more refs than
        those.
        """
        named = url.ref and not url.ref.startswith("refs/")
        listing = bytearray()

        def read(chunk: bytes) -> None:
            listing.extend(chunk)
            if len(listing) > _MAX_LIST:
                raise UserError(
                    f"{url.remote} has more refs than can be listed", "name a full commit"
                )

        git.run(
            "ls-remote",
            "--quiet",
            *(["--heads", "--tags"] if named else []),
            "--",
            "origin",
            read=read,
        )
        lines = (line.partition("\t") for line in listing.decode(errors="replace").splitlines())
        return cls(url, {name: commit for commit, _, name in lines if name.isprintable()})

    @property
    def object_format(self) -> str:
        """What the repository's ids are."""
        return "sha256" if any(len(commit) == 64 for commit in self.found.values()) else "sha1"

    def commit(self, progress: Progress) -> str | None:
        """Return the commit that the ref is; of an annotated tag the one that it is on. A branch
        comes before a tag.
        """
        ref = self.url.ref
        names = [f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref}", ref] if ref else ["HEAD"]
        there = [name for name in names if name in self.found]
        if len(there) > 1:
            progress.log(f"{self.url.remote} has {' and '.join(there)}: the first is taken")
        return self.found.get(f"{there[0]}^{{}}", self.found[there[0]]) if there else None

    def missing(self) -> str:
        """Raise the `UserError` that names what there is instead."""
        remote, ref = self.url.remote, self.url.ref
        names = [
            _short(name)
            for name in self.found
            if name.startswith("refs/") and not name.endswith("^{}")
        ]
        if not names:
            raise UserError(f"{remote} has no commits yet", "push to it, or check its spelling")
        near = get_close_matches(_short(ref), names, n=3) or names[:10]
        if not ref:
            raise UserError(f"{remote} has no default branch", f"name one, as in @{near[0]}")
        raise UserError(
            f"There is no branch, tag or commit {ref!r} in {remote}",
            f"the nearest are {', '.join(near)}; other refs are named in full (@refs/…), as are commits that no branch"
            " or tag has",
        )


def _short(name: str) -> str:
    return re.sub(r"^refs/(heads|tags)/", "", name)
