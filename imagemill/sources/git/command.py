"""Runs git for a worker that trusts neither the repository nor the request: nothing that either
says makes git run a program, ask a question, read the worker's files or go on for ever.

What keeps it so, from the git that has it on: `GIT_ALLOW_PROTOCOL` (2.3) leaves one transport;
`GIT_CONFIG_GLOBAL` (2.32, hence `OLDEST`) makes ours the only config; `core.hooksPath=/dev/null`
leaves no hooks. Paths that a file system takes for `.git` are refused at checkout (`.GIT` 2.2.1,
HFS+ and NTFS spellings 2.24.1), as are files written through a link; `fetch.fsckObjects` refuses
trees and `.gitmodules` that are made for such tricks (2.17.1, 2.19.1). A worker's git should be one
that is still mended: https://github.com/git/git/security/advisories.
"""

import base64
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from imagemill.errors import OperatorError, PermissionDenied, UserError
from imagemill.files.tree import room
from imagemill.place import machine
from imagemill.ports import Progress
from imagemill.processes import DEFAULT_PATH, TICK
from imagemill.sources.git.destination import check_ssh, followed
from imagemill.sources.git.environment import (
    CREDENTIAL_HELPER,
    check_allowed,
    config_for,
    environment_for,
    secrets_of,
)
from imagemill.sources.git.failures import failure
from imagemill.sources.git.mirror import mirror
from imagemill.sources.git.process import run
from imagemill.sources.git.url import Remote
from imagemill.sources.options import SourceOptions

OLDEST = (2, 32)
"""The git that is needed at least."""

ALL_REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
"""All branches and tags, as what to fetch."""

_SAID = 65536
"""Bytes of standard error that are kept, the last ones."""

_BLOCK = 4096
_MOVED = re.compile(r"The requested URL returned error: 30[12378]")


class Bounded:
    """Whether to go on: asks the step, and looks how large a folder has become meanwhile."""

    def __init__(self, folder: Path, remote: Remote, most: int, progress: Progress) -> None:
        self._folder, self._remote, self._most, self._progress = folder, remote, most, progress
        self._next = 0.0

    def check(self) -> None:
        """Raise if the build is to end, or the folder is too large; it is measured a tenth of the
        time at most.
        """
        self._progress.check()
        began = time.monotonic()
        if began >= self._next:
            self.measure()
            self._next = time.monotonic() + max(TICK, 10 * (time.monotonic() - began))

    def measure(self) -> None:
        """Raise if the folder is too large."""
        taken = 0
        for size in _sizes(self._folder):
            taken += -(-size // _BLOCK) * _BLOCK
            if taken > self._most:
                raise UserError(
                    f"{self._remote} takes more than {self._most:,} bytes",
                    "name a subdirectory, leave out its submodules or LFS files, or have the operator raise"
                    " IMAGEMILL_SOURCE_MAX_BYTES",
                )


def _sizes(folder: Path) -> Iterator[int]:
    """Of all that is in a folder, in bytes; what goes away meanwhile does not count."""
    folders = [os.fspath(folder)]
    while folders:
        with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                with suppress(FileNotFoundError):
                    yield entry.stat(follow_symlinks=False).st_size


@contextmanager
def opened(
    remote: Remote,
    options: SourceOptions,
    within: Path | None,
    progress: Progress,
    *,
    measured: Path | None = None,
) -> Iterator["Git"]:
    """Open a git for one remote repository, with all of its own in a folder that is gone at the
    end.

    The folder is made in `within`, or where the system has such. It, or `measured`, may not become
    larger than the worker allows. `PermissionDenied` if the worker does not speak to such a
    repository at all.
    """
    check_allowed(remote, options)
    if remote.scheme == "ssh":
        check_ssh(remote, options)
    with tempfile.TemporaryDirectory(prefix="git-", dir=within) as folder, room(Path(folder)):
        home = Path(folder)
        bounded = Bounded(measured or home, remote, options.max_bytes, progress)
        served = mirror(remote, options, home / "served", bounded)
        yield Git(remote, options, home, bounded, served)


class Git:
    """Git for one remote repository, which it calls `origin`; made by `opened`.

    `run` and `output` take what follows `git` on a command line. `home` is an empty folder that
    only the worker's user can read; `repository` in it is what git works on. `served` is where the
    remote is asked, if that is a copy of it.
    """

    def __init__(
        self,
        remote: Remote,
        options: SourceOptions,
        home: Path,
        bounded: Bounded,
        served: Remote | None = None,
    ) -> None:
        self._remote, self._home, self._bounded = remote, home, bounded
        self._options = options
        self._moved = False
        self._secrets = tuple(secrets_of(remote, options))
        self.repository = home / "repository"
        self._git = _git(options.environment.get("PATH", DEFAULT_PATH))
        (home / "config").write_text(config_for(served or remote, options, home))
        (home / "credentials").write_text(CREDENTIAL_HELPER)
        self.environment = environment_for(remote, options, home)
        self.environment["GIT_DIR"] = str(self.repository)

    def check(self) -> None:
        """Raise if the build is to end, or what was fetched is too large."""
        self._bounded.check()

    def init(self, object_format: str = "sha1") -> None:
        """Make the empty repository; the format is that of its ids, sha1 or sha256."""
        self.run("init", "--quiet", "--bare", f"--object-format={object_format}")

    def fetch(self, *options: str, wanted: Sequence[str]) -> None:
        """Fetch the objects or refs; `NotServedAloneError` if the server does not give them as the
        options say.
        """
        self.run("fetch", "--quiet", "--no-tags", *options, "--stdin", "origin", stdin=wanted)
        self._bounded.measure()

    def check_out(self, commit: str, tree: Path, *, sparse: bool) -> None:
        """Write the commit's files into `tree`; if `sparse`, those of `info/sparse-checkout` in the
        repository.
        """
        settings = (f"core.sparseCheckout={str(sparse).lower()}", "core.sparseCheckoutCone=false")
        config = [part for setting in settings for part in ("-c", setting)]
        self.run(*config, "read-tree", "-m", "-u", commit, tree=tree)
        self._bounded.measure()

    def run(
        self,
        *arguments: str,
        tree: Path | None = None,
        read: Callable[[bytes], None] | None = None,
        stdin: Sequence[str] | bytes = (),
    ) -> None:
        """Run git, with `tree` as the folder for the files if one is given, and the lines, or
        bytes, of `stdin` to read.

        `read` gets its output as it comes.

        Its failure is the error that it means to whoever can mend it
        (`imagemill.sources.git.failures`).
        """
        given = stdin if isinstance(stdin, bytes) else "".join(f"{x}\n" for x in stdin).encode()
        said = self._run_once(arguments, tree, read, given)
        if said is not None and not self._moved and _MOVED.search(said):
            self._follow()
            said = self._run_once(arguments, tree, read, given)
        if said is not None:
            raise failure(self._remote, self._without_secrets(said))

    def _run_once(
        self,
        arguments: Sequence[str],
        tree: Path | None,
        read: Callable[[bytes], None] | None,
        stdin: bytes,
    ) -> str | None:
        """Return what git says if it fails, None if it does not."""
        said = bytearray()

        def keep(chunk: bytes) -> None:
            said.extend(chunk)
            del said[:-_SAID]

        work = {"GIT_WORK_TREE": str(tree)} if tree else {}
        given = self._home / "stdin"
        given.write_bytes(stdin)
        with given.open("rb") as file:
            command, environment = [self._git, *arguments], {**self.environment, **work}
            code = run(
                command, environment, self._home, file, self._bounded.check, read or _ignore, keep
            )
        if code < 0:
            raise OperatorError(
                f"git was ended by signal {-code} while it worked on {self._remote}",
                f"see whether {machine()} has memory enough (the kernel's log says so)",
            )
        return said.decode(errors="replace") if code else None

    def output(self, *arguments: str, stdin: Sequence[str] | bytes = ()) -> bytes:
        """Run git and return all that it prints, for answers that are short."""
        chunks: list[bytes] = []
        self.run(*arguments, read=chunks.append, stdin=stdin)
        return b"".join(chunks)

    def login(self) -> dict[str, str]:
        """Return the header with what credential helpers have for the remote's host."""
        question = f"protocol={self._remote.scheme}\nhost={self._remote.address}\n\n".encode()
        try:
            answer = self.output("credential", "fill", stdin=question).decode(errors="replace")
        except PermissionDenied:
            return {}
        known = dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)
        pair = f"{known.get('username', '')}:{known.get('password', '')}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}

    def _follow(self) -> None:
        """Go on where the server says that the repository is by now."""
        self._moved = True
        moved = followed(self._remote, self._options, self.login())
        config = config_for(self._remote, self._options, self._home, moved)
        (self._home / "config").write_text(config)

    def _without_secrets(self, text: str) -> str:
        """Return the text without our secrets: a server may send back what it was sent."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text


def _ignore(_: bytes) -> None:
    pass


@lru_cache
def _git(path: str) -> str:
    """Return the git on `path`; `OperatorError` if there is none, or an old one."""
    found = shutil.which("git", path=path)
    if found is None:
        raise OperatorError(f"{machine().capitalize()} has no git", "install it (Debian: git)")
    said = subprocess.run(
        [found, "version"], env={"PATH": path}, capture_output=True, text=True, check=False
    ).stdout
    version = re.match(r"git version (\d+)\.(\d+)", said)  # git version 2.39.5 (Apple Git-154)
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        raise OperatorError(
            f"{machine().capitalize()}'s git is too old to be run on what nobody vouches for: {said.strip()}",
            f"install {'.'.join(map(str, OLDEST))} or a later one",
        )
    return found
