"""Git repositories, the servers that show them, and workers that may read from those."""

import os
import ssl
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import git_servers
import trees
from git_servers import GitHttp, GitSsh
from imagemill.sources.options import SourceOptions

_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "author",
    "GIT_AUTHOR_EMAIL": "author@example.org",
    "GIT_COMMITTER_NAME": "author",
    "GIT_COMMITTER_EMAIL": "author@example.org",
}


class Repository:
    """A bare repository at `path`, which servers show as `/NAME`, with a folder to commit from."""

    def __init__(self, root: Path, name: str, object_format: str = "sha1") -> None:
        self.name = name
        self.path = root / name
        self.work = root / f"{name}-work"
        self.work.mkdir()
        subprocess.run(
            [
                "git",
                "init",
                "-q",
                "--bare",
                "-b",
                "main",
                f"--object-format={object_format}",
                self.path,
            ],
            check=True,
        )
        self.git("config", "uploadpack.allowFilter", "true")

    def git(self, *arguments: str | Path, stdin: bytes = b"") -> str:
        """Run git on the repository and return what it prints."""
        environment = {
            **os.environ,
            **_ENVIRONMENT,
            "GIT_DIR": str(self.path),
            "GIT_WORK_TREE": str(self.work),
        }
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.work,
            env=environment,
            input=stdin,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode().strip()

    def commit(self, entries: Mapping[Any, str | bytes | None], branch: str = "main") -> str:
        """Commit the entries (see `trees.make`) besides what is there, and return the commit's
        id.
        """
        trees.make(self.work, entries)
        self.git("add", "--all")
        return self._commit(self.git("write-tree"), branch)

    def commit_index(self, *entries: tuple[str, str, str]) -> str:
        """Commit what no `git add` would: mode, object and path, besides what is there."""
        for mode, name, path in entries:
            self.git("update-index", "--add", "--cacheinfo", f"{mode},{name},{path}")
        return self._commit(self.git("write-tree"), "main")

    def commit_tree(self, *entries: tuple[str, str, str]) -> str:
        """Commit a tree of these entries alone, however wrong: mode, object and name."""
        content = b"".join(
            f"{mode} {path}".encode() + b"\0" + bytes.fromhex(name) for mode, name, path in entries
        )
        tree = self.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=content)
        return self._commit(tree, "main")

    def tree(self, *entries: tuple[str, str, str]) -> str:
        """Write a tree: mode, object and name."""
        lines = "".join(
            f"{mode} {'tree' if mode == '040000' else 'blob'} {name}\t{path}\n"
            for mode, name, path in entries
        )
        return self.git("mktree", stdin=lines.encode())

    def blob(self, content: bytes) -> str:
        """Write a file's content and return its id."""
        return self.git("hash-object", "-w", "--stdin", stdin=content)

    def _commit(self, tree: str, branch: str) -> str:
        parent = self.git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
        parents = ["-p", parent] if parent else []
        commit = self.git("commit-tree", *parents, "-m", uuid.uuid4().hex, tree)
        self.git("update-ref", f"refs/heads/{branch}", commit)
        return commit


@pytest.fixture(scope="session")
def git_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the repositories that all servers show."""
    return tmp_path_factory.mktemp("repositories")


@pytest.fixture
def new_repository(git_root: Path) -> Callable[..., Repository]:
    """Makes a new, empty repository that all servers show."""
    return lambda **options: Repository(git_root, f"{uuid.uuid4().hex[:12]}.git", **options)


@pytest.fixture
def repository(new_repository: Callable[..., Repository]) -> Repository:
    """An empty repository."""
    return new_repository()


@pytest.fixture
def git_http(git_root: Path) -> Iterator[GitHttp]:
    """An HTTP server that lets everybody read."""
    with git_servers.http(git_root) as server:
        yield server


@pytest.fixture
def git_https(git_root: Path, certificate: Path) -> Iterator[GitHttp]:
    """The same over TLS, with a certificate that only `certificate` vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with git_servers.http(git_root, context) as server:
        yield server


@pytest.fixture(scope="session")
def git_daemon(git_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a `git daemon`."""
    with git_servers.daemon(git_root, tmp_path_factory.mktemp("git-daemon")) as server:
        yield server.url


@pytest.fixture(scope="session")
def git_ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitSsh]:
    """An sshd that lets one deploy key in."""
    with git_servers.sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def worker(tmp_path: Path, git_root: Path) -> Callable[..., SourceOptions]:
    """Makes the options of a worker that may read what the tests' servers show."""

    def options(**changed: Any) -> SourceOptions:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            **changed.pop("environment", {}),
        }
        allowed: dict[str, Any] = {
            "insecure_hosts": frozenset({"127.0.0.1"}),
            "roots": (git_root,),
            "scratch": tmp_path,
        }
        return SourceOptions(environment=environment, **{**allowed, **changed})

    return options
