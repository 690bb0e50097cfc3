"""Git sources, from an HTTP server of this process: what is fetched, by which ref, with whose
credentials, and how often one is asked.
"""

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import git_servers
from git_fixtures import Repository
from git_servers import GitHttp
from imagemill import authorities
from imagemill.errors import OperatorError, PermissionDenied, ServiceUnreachable, UserError
from imagemill.ports import Quiet
from imagemill.sources.git.source import GitSource
from imagemill.sources.options import SourceOptions
from servers import free_port

Worker = Callable[..., SourceOptions]


Repositories = Callable[..., Repository]


FILES: dict[str, str | bytes | None] = {
    "Dockerfile": "FROM scratch\nCOPY . /\n",
    "run*": "#!/bin/sh\n",
    "link@": "app/main.py",
    "absolute@": "/bin/sh",
    "app/main.py": "print('first')\n",
    "app/data/part": b"\0\xff",
    "other/large": os.urandom(100_000),
}


TOKEN = "s3cret-t0ken-of-the-tests"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


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


class TestRefs:
    """By which name a commit is found."""

    @pytest.fixture
    def pin(
        self, repository: Repository, git_http: GitHttp, worker: Worker
    ) -> Callable[[str], str]:
        """Gives the commit that a ref is pinned to."""

        def pinned(ref: str) -> str:
            at = f"@{ref}" if ref else ""
            text = GitSource(f"git+{git_http.url}/{repository.name}{at}", worker()).pinned(Quiet())
            return text.rpartition("@")[2]

        return pinned

    def test_each_kind_of_ref(self, repository: Repository, pin: Callable[[str], str]) -> None:
        first = repository.commit({"a": "1"})
        repository.git("tag", "light", first)
        repository.git("tag", "--annotate", "--message", "text", "v1.0", first)
        repository.git("tag", "--annotate", "--message", "text", "package@1.0", first)
        second = repository.commit({"a": "2"}, branch="feature/x")
        repository.git("update-ref", "refs/pull/7/head", second)
        third = repository.commit({"a": "3"})
        assert (
            pin("")
            == pin("main")
            == pin("HEAD")
            == pin("heads/main")
            == pin("refs/heads/main")
            == third
        )
        assert (
            pin("light")
            == pin("v1.0")
            == pin("tags/v1.0")
            == pin("refs/tags/v1.0")
            == pin("package@1.0")
            == first
        )
        assert pin("feature/x") == pin("refs/pull/7/head") == second

    def test_default_branch_is_the_servers(
        self, repository: Repository, pin: Callable[[str], str]
    ) -> None:
        repository.commit({"a": "1"})
        trunk = repository.commit({"a": "2"}, branch="trunk")
        repository.git("symbolic-ref", "HEAD", "refs/heads/trunk")
        assert pin("") == trunk

    def test_branch_comes_before_a_tag(
        self, repository: Repository, git_http: GitHttp, worker: Worker
    ) -> None:
        first = repository.commit({"a": "1"})
        repository.git("tag", "both", first)
        second = repository.commit({"a": "2"}, branch="both")
        progress = Quiet()
        pinned = GitSource(f"git+{git_http.url}/{repository.name}@both", worker()).pinned(progress)
        assert pinned.endswith(second)
        assert "refs/heads/both and refs/tags/both: the first is taken" in progress.lines[0]

    @pytest.mark.parametrize("allow", ["true", "false"], ids=["filters", "no filters"])
    def test_short_commit(
        self, repository: Repository, pin: Callable[[str], str], allow: str
    ) -> None:
        repository.git("config", "uploadpack.allowFilter", allow)
        first = repository.commit({"a": "1"})
        repository.commit({"a": "2"})
        assert pin(first[:7]) == pin(first[:12].upper()) == pin(first) == first

    def test_short_commit_costs_no_files(
        self, repository: Repository, git_http: GitHttp, worker: Worker, pin: Callable[[str], str]
    ) -> None:
        first = repository.commit({"a": os.urandom(2_000_000)})
        repository.commit({"a": "2"})
        options = worker(max_bytes=500_000)
        source = GitSource(f"git+{git_http.url}/{repository.name}@{first[:8]}", options)
        assert source.pinned(Quiet()).endswith(first)

    def test_tag_of_hex_digits_is_a_tag(
        self, repository: Repository, pin: Callable[[str], str]
    ) -> None:
        first = repository.commit({"a": "1"})
        repository.git("tag", "20240131", first)
        repository.commit({"a": "2"})
        assert pin("20240131") == first

    def test_short_commit_that_is_several_is_told(
        self, repository: Repository, pin: Callable[[str], str]
    ) -> None:
        repository.commit({"a": "1"})
        shared, made = _twins(repository)
        for number, name in enumerate(made):
            repository.git("update-ref", f"refs/heads/twin{number}", name)
        with pytest.raises(
            UserError, match=f"Several commits in .* begin with {shared}: "
        ) as raised:
            pin(shared)
        assert raised.value.hint == "write more of its digits"

    @pytest.mark.parametrize("ref", ["mian", "refs/heads/mian"])
    def test_ref_that_is_not_there_is_told_with_the_nearest(
        self, repository: Repository, pin: Callable[[str], str], ref: str
    ) -> None:
        repository.commit({"a": "1"})
        repository.commit({"a": "1"}, branch="develop")
        with pytest.raises(
            UserError, match=f"There is no branch, tag or commit '{ref}' in"
        ) as raised:
            pin(ref)
        assert raised.value.hint.startswith("the nearest are main")

    def test_short_commit_that_is_not_there_is_told(
        self, repository: Repository, pin: Callable[[str], str]
    ) -> None:
        repository.commit({"a": "1"})
        with pytest.raises(UserError, match="There is no branch, tag or commit 'abcdef12345' in"):
            pin("abcdef12345")

    def test_repository_without_commits_is_told(
        self, repository: Repository, pin: Callable[[str], str]
    ) -> None:
        for ref in ("", "main"):
            with pytest.raises(UserError, match="has no commits yet"):
                pin(ref)

    def test_repository_without_a_default_branch_is_told(
        self, repository: Repository, pin: Callable[[str], str]
    ) -> None:
        repository.commit({"a": "1"}, branch="develop")
        with pytest.raises(UserError, match="has no default branch") as raised:
            pin("")
        assert raised.value.hint == "name one, as in @develop"

    def test_id_of_a_tag_is_no_commit(
        self, repository: Repository, git_http: GitHttp, worker: Worker, scratch: Path
    ) -> None:
        repository.git(
            "tag", "--annotate", "--message", "text", "v1", repository.commit({"a": "1"})
        )
        tag = repository.git("rev-parse", "v1")
        with pytest.raises(UserError, match=f"{tag} in .* is no commit but a tag"):
            GitSource(f"git+{git_http.url}/{repository.name}@{tag}", worker()).fetch(
                scratch, Quiet()
            )

    def test_sha256_repository(
        self, new_repository: Repositories, git_http: GitHttp, worker: Worker, scratch: Path
    ) -> None:
        repository = new_repository(object_format="sha256")
        commit = repository.commit({"a": "1"})
        source = GitSource(f"git+{git_http.url}/{repository.name}", worker())
        assert source.pinned(Quiet()).endswith(f"@{commit}")
        assert len(commit) == 64
        assert contents(source.fetch(scratch, Quiet())) == {"a": b"1"}


def _twins(repository: Repository) -> tuple[str, set[str]]:
    """Seven digits that two commits' ids begin with, and those two: some twenty thousand have to be
    tried.
    """
    seen: dict[str, bytes] = {}
    tree = repository.git("write-tree")
    for number in count():
        body = (
            f"tree {tree}\nauthor a <a@b> 0 +0000\ncommitter a <a@b> 0 +0000\n\n{number}\n".encode()
        )
        digits = hashlib.sha1(b"commit %d\0" % len(body) + body).hexdigest()[:7]
        if digits in seen:
            write = ["hash-object", "-t", "commit", "-w", "--stdin"]
            return digits, {repository.git(*write, stdin=twin) for twin in (body, seen[digits])}
        seen[digits] = body
    raise AssertionError


class TestRequests:
    """How often a server is asked, and for what."""

    def test_pinning_lists_refs_once(
        self, repository: Repository, git_http: GitHttp, worker: Worker
    ) -> None:
        commit = repository.commit(FILES)
        pinned = GitSource(f"git+{git_http.url}/{repository.name}@main", worker()).pinned(Quiet())
        assert pinned.endswith(commit)
        path = f"/{repository.name}"
        assert [(a.method, a.path) for a in git_http.asked] == [
            ("GET", f"{path}/info/refs?service=git-upload-pack"),
            ("POST", f"{path}/git-upload-pack"),
        ]
        assert b"command=ls-refs" in git_http.asked[1].body

    def test_pinned_text_is_pinned_without_asking(
        self, repository: Repository, git_http: GitHttp, worker: Worker
    ) -> None:
        text = f"git+{git_http.url}/{repository.name}@{repository.commit(FILES)}"
        assert GitSource(text, worker()).pinned(Quiet()) == text
        assert git_http.asked == []

    def test_pinned_text_is_fetched_without_asking_for_refs(
        self, repository: Repository, git_http: GitHttp, worker: Worker, scratch: Path
    ) -> None:
        commit = repository.commit(FILES)
        GitSource(f"git+{git_http.url}/{repository.name}@{commit}", worker()).fetch(
            scratch, Quiet()
        )
        assert [a.method for a in git_http.asked] == ["GET", "POST"]
        assert b"command=fetch" in git_http.asked[1].body
        assert commit.encode() in git_http.asked[1].body
        assert b"deepen 1" in git_http.asked[1].body

    def test_only_the_files_of_a_subdirectory_are_sent(
        self, repository: Repository, git_http: GitHttp, worker: Worker, scratch: Path
    ) -> None:
        repository.commit({"app/f": "1", "other/large": os.urandom(2_000_000)})
        options = worker(max_bytes=500_000)
        GitSource(f"git+{git_http.url}/{repository.name}#subdirectory=app", options).fetch(
            scratch, Quiet()
        )
        fetches = [a.body for a in git_http.asked if b"command=fetch" in a.body]
        assert [b"filter blob:none" in body for body in fetches] == [True, False]


class TestOldServers:
    """Servers that cannot all that git can: slower, and the same files."""

    @pytest.fixture
    def moved_on(self, repository: Repository) -> str:
        """A commit that no branch or tag is any more."""
        first = repository.commit(FILES)
        repository.commit({"app/main.py": "print('second')\n", "new": "2"})
        return first

    @pytest.mark.parametrize("fragment", ["", "#subdirectory=app"])
    @pytest.mark.parametrize("kind", ["old", "old with filters", "without filters", "dumb"])
    def test_commit_within_the_history(
        self,
        repository: Repository,
        git_http: GitHttp,
        worker: Worker,
        scratch: Path,
        moved_on: str,
        kind: str,
        fragment: str,
    ) -> None:
        git_http.old, git_http.dumb = kind.startswith("old"), kind == "dumb"
        repository.git("config", "uploadpack.allowFilter", str(kind == "old with filters").lower())
        repository.git("update-server-info")
        source = GitSource(f"git+{git_http.url}/{repository.name}@{moved_on}{fragment}", worker())
        expected = {
            name.removeprefix("app/"): content
            for name, content in as_bytes(FILES).items()
            if name.startswith("app/")
        }
        assert contents(source.fetch(scratch, Quiet())) == (
            expected if fragment else as_bytes(FILES)
        )

    def test_files_that_are_not_served_alone(
        self, repository: Repository, git_http: GitHttp, worker: Worker, scratch: Path
    ) -> None:
        """The tip can be had without files, and the files not afterwards."""
        repository.commit(FILES)
        git_http.old = True
        top = GitSource(
            f"git+{git_http.url}/{repository.name}#subdirectory=app/data", worker()
        ).fetch(scratch, Quiet())
        assert contents(top) == {"part": b"\0\xff"}
        assert not list(scratch.rglob("large"))

    @pytest.mark.parametrize("kind", ["old", "dumb"])
    def test_refs(
        self, repository: Repository, git_http: GitHttp, worker: Worker, moved_on: str, kind: str
    ) -> None:
        git_http.old, git_http.dumb = kind == "old", kind == "dumb"
        repository.git("update-server-info")
        base = f"git+{git_http.url}/{repository.name}"
        assert (
            GitSource(base, worker()).pinned(Quiet()).endswith(repository.git("rev-parse", "main"))
        )
        assert GitSource(f"{base}@{moved_on[:10]}", worker()).pinned(Quiet()).endswith(moved_on)


class TestSubmodules:
    """Other repositories within one."""

    @pytest.fixture
    def library(self, new_repository: Repositories) -> Repository:
        library = new_repository()
        library.commit({"lib.py": "1", "deep/f": "2"})
        return library

    def with_submodule(
        self, repository: Repository, library: Repository, url: str, more: str = ""
    ) -> None:
        repository.commit({"a": "1", ".gitmodules": module("vendor/lib", url, more)})
        repository.commit_index(("160000", library.git("rev-parse", "main"), "vendor/lib"))

    @pytest.mark.parametrize("url", ["../{name}", "{base}/{name}"], ids=["relative", "absolute"])
    def test_submodule_is_fetched_if_it_is_asked_for(
        self,
        repository: Repository,
        library: Repository,
        git_http: GitHttp,
        worker: Worker,
        scratch: Path,
        url: str,
    ) -> None:
        self.with_submodule(repository, library, url.format(name=library.name, base=git_http.url))
        library.commit({"lib.py": "later"})
        text = f"git+{git_http.url}/{repository.name}"
        without = contents(GitSource(text, worker()).fetch(scratch, Quiet()))
        top = GitSource(f"{text}#submodules=true", worker()).fetch(scratch, Quiet())
        assert {name: c for name, c in without.items() if name != ".gitmodules"} == {
            "a": b"1",
            "vendor/lib/": None,
        }
        assert {name: c for name, c in contents(top).items() if name != ".gitmodules"} == {
            "a": b"1",
            "vendor/lib/deep/f": b"2",
            "vendor/lib/lib.py": b"1",
        }

    @pytest.mark.parametrize("trusted", [False, True])
    def test_credentials_of_another_host_are_for_no_submodule_that_a_source_names(
        self,
        repository: Repository,
        library: Repository,
        git_http: GitHttp,
        git_root: Path,
        worker: Worker,
        scratch: Path,
        trusted: bool,
    ) -> None:
        with git_servers.http(git_root) as other:
            other.users = {"robot": "secret"}
            self.with_submodule(repository, library, f"{other.url}/{library.name}")
            hosts = frozenset({other.address} if trusted else ())
            options = worker(
                tokens={other.address.replace(":", "_"): "robot:secret"}, submodule_hosts=hosts
            )
            source = GitSource(f"git+{git_http.url}/{repository.name}#submodules=true", options)
            if trusted:
                assert "vendor/lib/lib.py" in contents(source.fetch(scratch, Quiet()))
                return
            with pytest.raises(PermissionDenied, match="the worker has none for it"):
                source.fetch(scratch, Quiet())
            assert {asked.authorization for asked in other.asked} == {""}

    def test_submodule_of_a_submodule(
        self,
        repository: Repository,
        new_repository: Repositories,
        library: Repository,
        git_http: GitHttp,
        worker: Worker,
        scratch: Path,
    ) -> None:
        middle = new_repository()
        self.with_submodule(middle, library, f"../{library.name}")
        self.with_submodule(repository, middle, f"../{middle.name}")
        top = GitSource(f"git+{git_http.url}/{repository.name}#submodules=1", worker()).fetch(
            scratch, Quiet()
        )
        assert (top / "vendor/lib/vendor/lib/lib.py").read_text() == "1"

    @pytest.mark.parametrize("folder", ["vendor", "vendor/lib", "vendor/lib/deep"])
    def test_subdirectory_in_a_submodule(
        self,
        repository: Repository,
        library: Repository,
        git_http: GitHttp,
        worker: Worker,
        scratch: Path,
        folder: str,
    ) -> None:
        self.with_submodule(repository, library, f"../{library.name}", "update = none")
        text = f"git+{git_http.url}/{repository.name}#subdirectory={folder}"
        if folder != "vendor":
            top = GitSource(f"{text}&submodules=true", worker()).fetch(scratch, Quiet())
            assert "f" in contents(top) or "deep/f" in contents(top)
            with pytest.raises(UserError, match=f"{folder} in .* is in a submodule") as raised:
                GitSource(text, worker()).fetch(scratch / "without", Quiet())
            assert raised.value.hint == "ask for it: &submodules=true"
        else:
            progress = Quiet()
            top = GitSource(f"{text}&submodules=true", worker()).fetch(scratch, progress)
            assert contents(top) == {"lib/": None}
            assert "Leaving out the submodule vendor/lib, as .gitmodules says" in progress.lines

    def test_submodule_outside_the_subdirectory_is_left_out(
        self,
        repository: Repository,
        library: Repository,
        git_http: GitHttp,
        worker: Worker,
        scratch: Path,
    ) -> None:
        self.with_submodule(repository, library, "../missing.git")
        repository.commit_index(("100644", repository.blob(b"1"), "app/f"))
        text = f"git+{git_http.url}/{repository.name}#subdirectory=app&submodules=true"
        assert contents(GitSource(text, worker()).fetch(scratch, Quiet())) == {"f": b"1"}


def module(path: str, url: str, more: str = "", name: str = "lib") -> str:
    """A section of `.gitmodules`."""
    return f'[submodule "{name}"]\n\tpath = {path}\n\turl = {url}\n\t{more}\n'


class TestLfs:
    """Files that lie in Git LFS."""

    CONTENT = b"large" * 1000

    @pytest.fixture
    def tracked(self, repository: Repository, git_root: Path) -> Iterator[str]:
        """The id of an LFS file that a server has, of which the repository has the pointer."""
        oid = hashlib.sha256(self.CONTENT).hexdigest()
        (git_root / "lfs").mkdir(exist_ok=True)
        (git_root / "lfs" / oid).write_bytes(self.CONTENT)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(self.CONTENT)}\n"
        repository.commit(
            {".gitattributes": "*.bin filter=lfs -text\n", "data/model.bin": pointer, "data/f": "1"}
        )
        yield pointer
        (git_root / "lfs" / oid).unlink(missing_ok=True)

    @pytest.mark.parametrize("folder", ["", "subdirectory=data&"])
    def test_lfs_files_are_fetched_if_they_are_asked_for(
        self,
        repository: Repository,
        git_http: GitHttp,
        worker: Worker,
        scratch: Path,
        tracked: str,
        folder: str,
    ) -> None:
        text = f"git+{git_http.url}/{repository.name}#{folder}lfs="
        pointer = GitSource(f"{text}false", worker()).fetch(scratch, Quiet())
        content = GitSource(f"{text}true", worker()).fetch(scratch / "lfs", Quiet())
        assert next(pointer.rglob("model.bin")).read_text() == tracked
        assert next(content.rglob("model.bin")).read_bytes() == self.CONTENT

    def test_lfs_files_of_a_private_repository(
        self,
        repository: Repository,
        git_http: GitHttp,
        worker: Worker,
        scratch: Path,
        tracked: str,
        tmp_path: Path,
    ) -> None:
        git_http.users = {"x-access-token": TOKEN}
        options = worker(credentials=credentials(tmp_path, git_http, TOKEN))
        top = GitSource(f"git+{git_http.url}/{repository.name}#lfs=true", options).fetch(
            scratch, Quiet()
        )
        assert (top / "data/model.bin").read_bytes() == self.CONTENT

    def test_token_that_is_not_for_lfs_is_told(
        self,
        repository: Repository,
        git_http: GitHttp,
        worker: Worker,
        scratch: Path,
        tracked: str,
        tmp_path: Path,
    ) -> None:
        git_http.users, git_http.lfs = {"x-access-token": TOKEN}, False
        source = GitSource(
            f"git+{git_http.url}/{repository.name}#lfs=true",
            worker(credentials=credentials(tmp_path, git_http, TOKEN)),
        )
        with pytest.raises(
            PermissionDenied, match=r"Files of .* that lie in Git LFS could not be had"
        ):
            source.fetch(scratch, Quiet())

    def test_lfs_file_that_is_not_there_is_told(
        self,
        repository: Repository,
        git_http: GitHttp,
        worker: Worker,
        scratch: Path,
        tracked: str,
        git_root: Path,
    ) -> None:
        for path in (git_root / "lfs").iterdir():
            path.unlink()
        with pytest.raises(
            UserError, match=r"Files of .* that lie in Git LFS could not be had"
        ) as raised:
            GitSource(f"git+{git_http.url}/{repository.name}#lfs=true", worker()).fetch(
                scratch, Quiet()
            )
        assert "git lfs push --all" in raised.value.hint

    def test_operators_lfs_settings_change_nothing(
        self,
        repository: Repository,
        git_http: GitHttp,
        worker: Worker,
        scratch: Path,
        tracked: str,
        tmp_path: Path,
    ) -> None:
        config = tmp_path / "gitconfig"
        config.write_text(
            '[filter "lfs"]\n\tsmudge = false\n\tprocess = false\n\trequired = true\n'
        )
        options = worker(git_config=config)
        top = GitSource(f"git+{git_http.url}/{repository.name}", options).fetch(scratch, Quiet())
        assert (top / "data/model.bin").read_text() == tracked


def credentials(tmp_path: Path, server: GitHttp, text: str) -> Path:
    """A folder with a file for the server."""
    folder = tmp_path / "credentials"
    folder.mkdir(exist_ok=True)
    (folder / server.address.replace(":", "_")).write_text(f"{text}\n")
    return folder


class TestPrivateByHttp:
    """Tokens."""

    @pytest.mark.parametrize(
        ("file", "user"),
        [(TOKEN, "x-access-token"), (f"robot:{TOKEN}", "robot")],
        ids=["token", "user and token"],
    )
    def test_token_is_read_from_the_hosts_file(
        self,
        repository: Repository,
        git_http: GitHttp,
        worker: Worker,
        scratch: Path,
        tmp_path: Path,
        file: str,
        user: str,
    ) -> None:
        repository.commit(FILES)
        git_http.users = {user: TOKEN}
        source = GitSource(
            f"git+{git_http.url}/{repository.name}",
            worker(credentials=credentials(tmp_path, git_http, file)),
        )
        assert contents(source.fetch(scratch, Quiet())) == as_bytes(FILES)

    def test_token_of_the_workers_environment(
        self, repository: Repository, git_http: GitHttp, worker: Worker
    ) -> None:
        repository.commit(FILES)
        git_http.users = {"robot": TOKEN}
        name = git_http.address.replace(":", "_")
        options = worker(tokens={"other.example": "x", name: f"robot:{TOKEN}", "127.0.0.1": "y"})
        assert TOKEN not in repr(options)
        GitSource(f"git+{git_http.url}/{repository.name}", options).pinned(Quiet())

    def test_credential_helper_of_the_operator(
        self, repository: Repository, git_http: GitHttp, worker: Worker, tmp_path: Path
    ) -> None:
        repository.commit(FILES)
        git_http.users = {"robot": TOKEN}
        config = tmp_path / "git config"
        config.write_text(
            f'[credential]\n\thelper = "!f() {{ echo username=robot; echo password={TOKEN}; }}; f"\n'
        )
        GitSource(f"git+{git_http.url}/{repository.name}", worker(git_config=config)).pinned(
            Quiet()
        )

    def test_askpass_of_the_operator(
        self, repository: Repository, git_http: GitHttp, worker: Worker, tmp_path: Path
    ) -> None:
        repository.commit(FILES)
        git_http.users = {"robot": TOKEN}
        program = tmp_path / "askpass"
        program.write_text(
            f'#!/bin/sh\ncase "$1" in Username*) echo robot ;; *) echo {TOKEN} ;; esac\n'
        )
        program.chmod(0o700)
        options = worker(environment={"GIT_ASKPASS": str(program)})
        GitSource(f"git+{git_http.url}/{repository.name}", options).pinned(Quiet())

    def test_missing_credentials_are_told(
        self, repository: Repository, git_http: GitHttp, worker: Worker, tmp_path: Path
    ) -> None:
        git_http.users = {"robot": TOKEN}
        (tmp_path / "empty").mkdir()
        with pytest.raises(
            PermissionDenied, match="is private, or there is no such repository"
        ) as raised:
            GitSource(
                f"git+{git_http.url}/{repository.name}", worker(credentials=tmp_path / "empty")
            ).pinned(Quiet())
        assert (
            f"the file {git_http.address.replace(':', '_')} in IMAGEMILL_SOURCE_CREDENTIALS"
            in raised.value.hint
        )

    def test_wrong_credentials_are_told_and_not_shown(
        self, repository: Repository, git_http: GitHttp, worker: Worker, tmp_path: Path
    ) -> None:
        git_http.users = {"robot": "another"}
        options = worker(credentials=credentials(tmp_path, git_http, f"robot:{TOKEN}"))
        with pytest.raises(
            PermissionDenied, match="refuses the worker's credentials for"
        ) as raised:
            GitSource(f"git+{git_http.url}/{repository.name}", options).pinned(Quiet())
        assert TOKEN not in str(raised.value)

    @pytest.mark.parametrize(
        ("status", "kind"), [(403, PermissionDenied), (404, UserError), (500, ServiceUnreachable)]
    )
    def test_what_a_server_answers(
        self,
        repository: Repository,
        git_http: GitHttp,
        worker: Worker,
        status: int,
        kind: type[Exception],
    ) -> None:
        git_http.answer = status, "the server's words"
        with pytest.raises(kind, match="the server's words"):
            GitSource(f"git+{git_http.url}/{repository.name}", worker()).pinned(Quiet())


class TestTls:
    """https://."""

    def test_certificate_of_a_known_authority(
        self,
        repository: Repository,
        git_https: GitHttp,
        worker: Worker,
        scratch: Path,
        certificate: Path,
    ) -> None:
        repository.commit(FILES)
        options = worker(
            environment={"GIT_SSL_CAINFO": str(certificate)},
            insecure_hosts=frozenset(),
            networks=("127.0.0.1/32",),
        )
        source = GitSource(f"{git_https.url}/{repository.name}", options)
        assert source.pinned(Quiet()).startswith(f"git+{git_https.url}/{repository.name}@")
        assert contents(source.fetch(scratch, Quiet())) == as_bytes(FILES)

    def test_authority_of_dockers_folder_is_trusted_for_its_host(
        self,
        repository: Repository,
        git_https: GitHttp,
        worker: Worker,
        certificate: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        repository.commit(FILES)
        folder = tmp_path / git_https.url.removeprefix("https://").partition("/")[0]
        folder.mkdir()
        (folder / "ca.crt").write_bytes(certificate.read_bytes())
        monkeypatch.setattr(authorities, "_CERTS_D", (tmp_path,))
        options = worker(insecure_hosts=frozenset(), networks=("127.0.0.1/32",))
        assert GitSource(f"{git_https.url}/{repository.name}", options).pinned(Quiet())

    def test_certificate_that_nobody_vouches_for_is_refused(
        self, repository: Repository, git_https: GitHttp, worker: Worker
    ) -> None:
        with pytest.raises(OperatorError, match="does not trust the certificate of") as raised:
            GitSource(f"{git_https.url}/{repository.name}", worker()).pinned(Quiet())
        assert "IMAGEMILL_AUTHORITIES" in raised.value.hint


class TestAllowed:
    """What the worker's options let be read."""

    def test_plain_http_and_git_are_for_listed_hosts(
        self, repository: Repository, git_http: GitHttp, worker: Worker, scratch: Path
    ) -> None:
        commit = repository.commit(FILES)
        for text in (
            f"git+{git_http.url}/x.git",
            f"git+{git_http.url}/x.git@{commit}",
            "git://127.0.0.1/x.git",
        ):
            with pytest.raises(
                PermissionDenied, match="which anybody on the way can change"
            ) as raised:
                GitSource(text, worker(insecure_hosts=frozenset({"other"}))).fetch(scratch, Quiet())
            assert "IMAGEMILL_SOURCE_INSECURE_HOSTS" in raised.value.hint
        assert git_http.asked == []
        options = worker(insecure_hosts=frozenset({git_http.address}))
        GitSource(f"git+{git_http.url}/{repository.name}", options).pinned(Quiet())

    def test_files_are_read_below_the_roots_only(
        self, repository: Repository, git_root: Path, worker: Worker, tmp_path: Path, scratch: Path
    ) -> None:
        commit = repository.commit(FILES)
        (tmp_path / "root").mkdir()
        (tmp_path / "root/link.git").symlink_to(repository.path)
        for path in (repository.path, tmp_path / "root/link.git"):
            for at in ("", f"@{commit}"):
                with pytest.raises(
                    PermissionDenied, match="The worker may not read sources at"
                ) as raised:
                    GitSource(f"git+file://{path}{at}", worker(roots=(tmp_path / "root",))).fetch(
                        scratch, Quiet()
                    )
                assert "IMAGEMILL_SOURCE_ROOTS" in raised.value.hint

    def test_repository_of_another_user_below_the_roots(
        self, repository: Repository, git_root: Path, worker: Worker, scratch: Path
    ) -> None:
        repository.commit(FILES)
        working = git_root / f"{repository.name}-copy"
        subprocess.run(["git", "clone", "--quiet", repository.path, working], check=True)
        for path in (repository.path, working / ".git", working):
            if os.geteuid() == 0:
                os.chown(path, 65534, 65534)
            top = GitSource(f"git+file://{path.parent}/{path.name}".removesuffix("/.git"), worker())
            assert contents(top.fetch(scratch, Quiet())) == as_bytes(FILES)


class TestUnreachable:
    """Nobody answers: that is neither yes nor no."""

    @pytest.mark.parametrize("scheme", ["git+http", "git+https", "git", "git+ssh"])
    def test_port_that_nobody_listens_on(self, worker: Worker, scheme: str) -> None:
        text = f"{scheme}://127.0.0.1:{free_port()}/x.git"
        with pytest.raises(
            ServiceUnreachable, match=r"127\.0\.0\.1:\d+ does not answer, or broke off: .*"
        ) as raised:
            GitSource(text, worker()).pinned(Quiet())
        assert raised.value.hint == "check that it is up, and what is between"

    @pytest.mark.parametrize("scheme", ["git+http", "git+https", "git", "git+ssh"])
    def test_host_that_nobody_knows(self, worker: Worker, scheme: str) -> None:
        options = worker(insecure_hosts=frozenset({"no-such-host.invalid"}))
        with pytest.raises(
            ServiceUnreachable, match=r"The name of no-such-host\.invalid cannot be resolved"
        ) as raised:
            GitSource(f"{scheme}://no-such-host.invalid/x.git", options).pinned(Quiet())
        assert raised.value.hint.startswith("check its spelling")
