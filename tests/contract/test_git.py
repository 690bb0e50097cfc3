"""Git sources on real servers: over HTTP, `git daemon`, ssh and from a folder alike, and keys for ssh."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import git_servers
from git_fixtures import Repository
from git_servers import GitSsh
from imagemill.errors import OperatorError, PermissionDenied, UserError
from imagemill.ports import Quiet
from imagemill.sources.git.source import GitSource
from imagemill.sources.options import SourceOptions

Worker = Callable[..., SourceOptions]


FILES: dict[str, str | bytes | None] = {
    "Dockerfile": "FROM scratch\nCOPY . /\n",
    "run*": "#!/bin/sh\n",
    "link@": "app/main.py",
    "absolute@": "/bin/sh",
    "app/main.py": "print('first')\n",
    "app/data/part": b"\0\xff",
    "other/large": os.urandom(100_000),
}


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.fixture(params=["http", "daemon", "ssh", "file"])
def place(
    request: pytest.FixtureRequest, worker: Worker, git_root: Path
) -> tuple[str, SourceOptions]:
    """What stands before a repository's name, and the worker that can read it, on each kind of
    server.
    """
    if request.param == "http":
        return f"git+{request.getfixturevalue('git_http').url}", worker()
    if request.param == "daemon":
        return request.getfixturevalue("git_daemon"), worker()
    if request.param == "ssh":
        ssh: GitSsh = request.getfixturevalue("git_ssh")
        return f"git+{ssh.url}{git_root}", worker(ssh_keys=keys(ssh), known_hosts=ssh.known_hosts)
    return f"git+{git_root.as_uri()}", worker()


def keys(ssh: GitSsh, name: str = "default") -> Path:
    """A folder with the key that the server lets in, under that name."""
    folder = ssh.key.parent / f"keys-{name}"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(ssh.key.read_bytes())
    (folder / name).chmod(0o644)  # as it is where it is mounted
    return folder


def contents(top: Path) -> dict[str, Any]:
    """All that a folder holds: content of files, target of links, None for empty folders."""
    found: dict[str, Any] = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[f"{name}@"] = str(path.readlink())
        elif path.is_file():
            found[f"{name}*" if path.stat().st_mode & 0o100 else name] = path.read_bytes()
        elif not any(path.iterdir()):
            found[f"{name}/"] = None
    return found


def as_bytes(files: dict[str, Any]) -> dict[str, Any]:
    """`FILES` and their like, as `contents` finds them."""
    return {
        name: content if name.endswith("@") or not isinstance(content, str) else content.encode()
        for name, content in files.items()
    }


class TestFetch:
    """On each kind of server."""

    def test_commit_is_fetched_with_nothing_of_gits_own(
        self, place: tuple[str, SourceOptions], repository: Repository, scratch: Path
    ) -> None:
        repository.commit(FILES)
        base, options = place
        top = GitSource(f"{base}/{repository.name}", options).fetch(scratch, Quiet())
        assert contents(top) == as_bytes(FILES)
        assert [
            path
            for path in scratch.rglob("*")
            if ".git" in path.name or path.name.startswith("git-")
        ] == []

    def test_pinned_text_stays_what_it_is_when_the_branch_moves_on(
        self, place: tuple[str, SourceOptions], repository: Repository, scratch: Path
    ) -> None:
        first = repository.commit(FILES)
        base, options = place
        pinned = GitSource(f"{base}/{repository.name}@main", options).pinned(Quiet())
        repository.commit({"app/main.py": "print('second')\n"})
        assert re.search(rf"^git\+[a-z]+://.*/{repository.name}@{first}$", pinned)
        assert GitSource(pinned, options).pinned(Quiet()) == pinned
        assert contents(GitSource(pinned, options).fetch(scratch, Quiet())) == as_bytes(FILES)

    def test_subdirectory_is_fetched_alone(
        self, place: tuple[str, SourceOptions], repository: Repository, scratch: Path
    ) -> None:
        repository.commit({**FILES, "a b/[x]*/f": "odd", "a b/x/f": "not this"})
        base, options = place
        top = GitSource(f"{base}/{repository.name}#subdirectory=app", options).fetch(
            scratch, Quiet()
        )
        assert contents(top) == {"main.py": b"print('first')\n", "data/part": b"\0\xff"}
        assert not list(scratch.rglob("large"))
        odd = GitSource(f"{base}/{repository.name}#subdirectory=a%20b/[x]*", options).fetch(
            scratch / "odd", Quiet()
        )
        assert contents(odd) == {"f": b"odd"}

    def test_repository_that_is_not_there_is_told(
        self, place: tuple[str, SourceOptions], tmp_path: Path
    ) -> None:
        base, options = place
        with pytest.raises(UserError, match=r"There is no repository .*/missing\.git") as raised:
            GitSource(f"{base}/missing.git", options).pinned(Quiet())
        assert "check the spelling" in raised.value.hint

    def test_commit_that_is_not_there_is_told(
        self, place: tuple[str, SourceOptions], repository: Repository, scratch: Path
    ) -> None:
        repository.commit(FILES)
        base, options = place
        with pytest.raises(UserError, match="There is no such commit in") as raised:
            GitSource(f"{base}/{repository.name}@{'12' * 20}", options).fetch(scratch, Quiet())
        assert raised.value.hint == "push it, or check its spelling"


class TestSsh:
    """Deploy keys and known hosts."""

    @pytest.fixture
    def text(self, git_ssh: GitSsh, git_root: Path, repository: Repository) -> str:
        repository.commit(FILES)
        return f"git+{git_ssh.url}{git_root}/{repository.name}"

    def test_key_of_the_host_comes_before_the_default(
        self, git_ssh: GitSsh, worker: Worker, text: str, tmp_path: Path
    ) -> None:
        host = git_ssh.url.rpartition("@")[2].replace(":", "_")
        folder = tmp_path / "two keys"
        folder.mkdir()
        (folder / host).write_bytes(git_ssh.key.read_bytes())
        git_servers.new_key(folder / "default")
        GitSource(text, worker(ssh_keys=folder, known_hosts=git_ssh.known_hosts)).pinned(Quiet())

    def test_key_that_is_not_known_there_is_told(
        self, git_ssh: GitSsh, worker: Worker, text: str, tmp_path: Path
    ) -> None:
        git_servers.new_key(tmp_path / "default")
        with pytest.raises(
            PermissionDenied, match=r"refuses the worker's credentials for .*Permission denied"
        ) as raised:
            GitSource(text, worker(ssh_keys=tmp_path, known_hosts=git_ssh.known_hosts)).pinned(
                Quiet()
            )
        assert "IMAGEMILL_GIT_SSH_KEYS" in raised.value.hint

    def test_missing_key_is_told(
        self, git_ssh: GitSsh, worker: Worker, text: str, tmp_path: Path
    ) -> None:
        with pytest.raises(
            PermissionDenied, match=r"The worker has no SSH key for 127\.0\.0\.1:\d+"
        ) as raised:
            GitSource(text, worker(ssh_keys=tmp_path, known_hosts=git_ssh.known_hosts)).pinned(
                Quiet()
            )
        assert "127.0.0.1_" in raised.value.hint

    @pytest.mark.parametrize("known", ["nobody", "another key"])
    def test_host_that_is_not_known_is_refused(
        self, git_ssh: GitSsh, worker: Worker, text: str, tmp_path: Path, known: str
    ) -> None:
        other = git_servers.new_key(tmp_path / "other").with_suffix(".pub").read_text()
        host = git_ssh.known_hosts.read_text().split()[0]
        (tmp_path / "known hosts").write_text(f"{host} {other}" if known == "another key" else "")
        options = worker(ssh_keys=keys(git_ssh), known_hosts=tmp_path / "known hosts")
        with pytest.raises(OperatorError, match="does not know the host key of") as raised:
            GitSource(text, options).pinned(Quiet())
        assert "IMAGEMILL_GIT_KNOWN_HOSTS" in raised.value.hint
