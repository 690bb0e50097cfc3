"""Repositories, servers and requests that mean harm: nothing of the worker's is read, run, told or
used up.
"""

import base64
import os
import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import git_servers
import hardship
from git_fixtures import Repository
from git_servers import GitHttp, GitSsh
from imagemill.errors import BuildCancelled, OperatorError, PermissionDenied, UserError
from imagemill.ports import Quiet
from imagemill.sources.git import process
from imagemill.sources.git.process import MOST_PROCESSES, run
from imagemill.sources.git.source import GitSource
from imagemill.sources.options import SourceOptions

Worker = Callable[..., SourceOptions]
Repositories = Callable[..., Repository]

MIB = 1 << 20
TOKEN = "s3cret-t0ken-of-the-tests"
WAIT = 30.0
"""Seconds after which a test gives up waiting for what must happen."""


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.fixture
def source(repository: Repository, git_http: GitHttp, worker: Worker) -> Callable[..., GitSource]:
    """Makes the source of the repository on the HTTP server; the argument is what stands behind its
    URL.
    """
    return lambda more="", **options: GitSource(
        f"git+{git_http.url}/{repository.name}{more}", worker(**options)
    )


def refused(source: GitSource, scratch: Path) -> UserError:
    """What is said to whoever wants to build from it."""
    with pytest.raises(UserError) as raised:
        source.fetch(scratch, Quiet())
    assert raised.value.hint
    return raised.value


class TestTrees:
    """Trees that no `git add` makes."""

    @pytest.mark.parametrize(
        "name", [".git", ".GIT", ".Git", "..", ".", "git~1", ".git ", ".git\u200c", "a/b", ""]
    )
    def test_name_that_leads_elsewhere_is_refused(
        self,
        repository: Repository,
        source: Callable[..., GitSource],
        scratch: Path,
        tmp_path: Path,
        name: str,
    ) -> None:
        blob = repository.blob(b"harm")
        inner = repository.tree(("100644", blob, "config"))
        before = repository.blob(b"harmless")
        for mode, object_name in (("100644", blob), ("40000", inner)):
            repository.commit_tree(("100644", before, "%first"), (mode, object_name, name))
            error = refused(source(), scratch)
            assert "what git refuses as unsafe or damaged" in error.message
            assert b"harm" not in [
                path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
            ]

    def test_file_below_a_link_is_refused(
        self,
        repository: Repository,
        source: Callable[..., GitSource],
        scratch: Path,
        tmp_path: Path,
    ) -> None:
        (tmp_path / "outside").mkdir()
        link = repository.blob(str(tmp_path / "outside").encode())
        inner = repository.tree(("100644", repository.blob(b"harm"), "f"))
        repository.commit_tree(("120000", link, "a"), ("40000", inner, "a"))
        assert "what git refuses as unsafe or damaged" in refused(source(), scratch).message
        assert list((tmp_path / "outside").iterdir()) == []

    @pytest.mark.parametrize("more", ["", "#subdirectory=deep"])
    def test_small_trees_that_hold_each_other_by_the_billion(
        self, repository: Repository, source: Callable[..., GitSource], scratch: Path, more: str
    ) -> None:
        """As https://github.com/Katee/git-bomb: it has a few hundred bytes."""
        tree = repository.tree(*(("100644", repository.blob(b""), f"f{i}") for i in range(10)))
        for _ in range(8):
            tree = repository.tree(*(("040000", tree, f"d{i}") for i in range(10)))
        repository.commit_tree(
            ("100644", repository.blob(b""), "Dockerfile"), ("40000", tree, "deep")
        )
        error = refused(source(more, max_files=10_000), scratch)
        assert error.message.endswith("has more than 10,000 files")
        assert "IMAGEMILL_SOURCE_MAX_FILES" in error.hint

    def test_links_are_kept_and_nothing_is_read_through_them(
        self, repository: Repository, source: Callable[..., GitSource], scratch: Path
    ) -> None:
        """Where they lead is the context's to judge, which packs links as links
        (docs/adr/0006-local-sources.md).
        """
        repository.commit(
            {"out@": "../../etc/passwd", "absolute@": "/etc", "within@": "f", "f": "1"}
        )
        top = source().fetch(scratch, Quiet())
        assert {path.name: str(path.readlink()) for path in top.iterdir() if path.is_symlink()} == {
            "absolute": "/etc",
            "out": "../../etc/passwd",
            "within": "f",
        }
        for folder in ("absolute", "out"):
            refused(source(f"#subdirectory={folder}"), scratch)


class TestPrograms:
    """Nothing in a repository is run."""

    @pytest.fixture
    def mark(self, tmp_path: Path) -> Path:
        """A file that is there as soon as something was run."""
        return tmp_path / "was-run"

    def test_attributes_and_config_of_the_repository_run_nothing(
        self, repository: Repository, source: Callable[..., GitSource], scratch: Path, mark: Path
    ) -> None:
        command = f"touch {mark}; cat"
        config = f'[filter "x"]\n\tsmudge = {command}\n[core]\n\tfsmonitor = {command}\n\thooksPath = hooks\n'
        repository.commit(
            {
                ".gitattributes": "* filter=x\n",
                ".gitconfig": config,
                "config": config,
                "f": "1",
                "hooks/post-checkout*": f"#!/bin/sh\ntouch {mark}\n",
                "hooks/post-index-change*": f"#!/bin/sh\ntouch {mark}\n",
            }
        )
        top = source().fetch(scratch, Quiet())
        assert (top / "f").read_text() == "1"
        assert not mark.exists()

    def test_operators_hooks_and_templates_are_not_run(
        self,
        repository: Repository,
        source: Callable[..., GitSource],
        scratch: Path,
        mark: Path,
        tmp_path: Path,
    ) -> None:
        hooks = tmp_path / "templates/hooks"
        hooks.mkdir(parents=True)
        for name in ("post-checkout", "post-index-change", "reference-transaction"):
            (hooks / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
            (hooks / name).chmod(0o755)
        config = tmp_path / "gitconfig"
        config.write_text(
            f"[core]\n\thooksPath = {hooks}\n[init]\n\ttemplateDir = {hooks.parent}\n"
        )
        repository.commit({"f": "1"})
        source(git_config=config).fetch(scratch, Quiet())
        assert not mark.exists()

    def test_environment_of_the_worker_steers_nothing(
        self,
        repository: Repository,
        source: Callable[..., GitSource],
        scratch: Path,
        mark: Path,
        tmp_path: Path,
    ) -> None:
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\ntouch {mark}\n")
        program.chmod(0o755)
        names = (
            "GIT_SSH_COMMAND",
            "GIT_EXTERNAL_DIFF",
            "GIT_PROXY_COMMAND",
            "GIT_EXEC_PATH",
            "SSH_ASKPASS",
        )
        environment = {
            **dict.fromkeys(names, str(program)),
            "GIT_DIR": "/",
            "GIT_TRACE": str(tmp_path / "trace"),
        }
        repository.commit({"f": "1"})
        top = source(environment=environment).fetch(scratch, Quiet())
        assert (top / "f").read_text() == "1"
        assert not mark.exists()
        assert not (tmp_path / "trace").exists()

    def test_git_repository_around_the_worker_steers_nothing(
        self,
        repository: Repository,
        source: Callable[..., GitSource],
        scratch: Path,
        tmp_path: Path,
        git_http: GitHttp,
    ) -> None:
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        with (tmp_path / ".git/config").open("a") as config:
            config.write(f'[url "{git_http.url}/elsewhere/"]\n\tinsteadOf = {git_http.url}/\n')
        commit = repository.commit({"f": "1"})
        assert source().pinned(Quiet()).endswith(commit)
        assert (source().fetch(scratch, Quiet()) / "f").read_text() == "1"


class TestSubmodules:
    """Submodules that lead where a request may not."""

    @pytest.mark.parametrize(
        "url",
        [
            "ext::sh -c touch% {mark}",
            "file://{root}/secret.git",
            "{root}/secret.git",
            "../../../etc",
            "-u./payload",
            "ssh://-oProxyCommand=touch%20{mark}/x",
            "https://user:hunter2@127.0.0.1/x.git",
            "http://127.0.0.1/a%0ahost=github.com",
        ],
    )
    def test_submodule_that_leads_elsewhere_is_refused(
        self,
        repository: Repository,
        source: Callable[..., GitSource],
        scratch: Path,
        tmp_path: Path,
        git_root: Path,
        url: str,
    ) -> None:
        mark = tmp_path / "was-run"
        module = (
            f'[submodule "x"]\n\tpath = sub\n\turl = "{url.format(mark=mark, root=git_root)}"\n'
        )
        repository.commit({".gitmodules": module, "f": "1"})
        repository.commit_index(("160000", repository.git("rev-parse", "main"), "sub"))
        error = refused(source("#submodules=true"), scratch)
        assert re.search(
            r"The submodule sub of .* is refused: |what git refuses as unsafe", error.message
        )
        assert "hunter2" not in str(error)
        assert not mark.exists()

    def test_submodule_on_a_server_that_is_not_allowed(
        self,
        repository: Repository,
        git_http: GitHttp,
        git_daemon: str,
        worker: Worker,
        new_repository: Repositories,
        scratch: Path,
    ) -> None:
        other = new_repository()
        commit = other.commit({"f": "1"})
        repository.commit(
            {".gitmodules": f'[submodule "x"]\n\tpath = sub\n\turl = {git_daemon}/{other.name}\n'}
        )
        repository.commit_index(("160000", commit, "sub"))
        options = worker(insecure_hosts=frozenset({git_http.address}))
        with pytest.raises(PermissionDenied, match="which anybody on the way can change"):
            GitSource(f"git+{git_http.url}/{repository.name}#submodules=true", options).fetch(
                scratch, Quiet()
            )

    def test_submodule_that_runs_a_command_does_not(
        self,
        repository: Repository,
        source: Callable[..., GitSource],
        scratch: Path,
        tmp_path: Path,
    ) -> None:
        mark = tmp_path / "was-run"
        commit = repository.commit({"f": "1"})
        module = f'[submodule "../../x"]\n\tpath = sub\n\turl = ../{repository.name}\n\tupdate = !touch {mark}\n'
        repository.commit({".gitmodules": module})
        repository.commit_index(("160000", commit, "sub"))
        refused(source("#submodules=true"), scratch)
        assert not mark.exists()

    def test_submodule_below_a_link_is_refused(
        self,
        repository: Repository,
        source: Callable[..., GitSource],
        scratch: Path,
        tmp_path: Path,
    ) -> None:
        (tmp_path / "outside").mkdir()
        commit = repository.commit({"f": "1"})
        modules = repository.blob(
            f'[submodule "x"]\n\tpath = a/sub\n\turl = ../{repository.name}\n'.encode()
        )
        link = repository.blob(str(tmp_path / "outside").encode())
        content = b"160000 sub\0" + bytes.fromhex(commit)
        inner = repository.git(
            "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=content
        )
        repository.commit_tree(
            ("100644", modules, ".gitmodules"), ("120000", link, "a"), ("40000", inner, "a")
        )
        refused(source("#submodules=true"), scratch)
        assert list((tmp_path / "outside").iterdir()) == []

    def test_submodules_of_submodules_have_an_end(
        self, new_repository: Repositories, git_http: GitHttp, worker: Worker, scratch: Path
    ) -> None:
        repository = new_repository()
        commit = repository.commit({"f": "1"})
        for _ in range(18):
            repository.git("read-tree", "--empty")
            module = repository.blob(
                f'[submodule "x"]\n\tpath = s\n\turl = ../{repository.name}\n'.encode()
            )
            commit = repository.commit_index(
                ("100644", module, ".gitmodules"), ("160000", commit, "s")
            )
        error = refused(
            GitSource(f"git+{git_http.url}/{repository.name}#submodules=true", worker()), scratch
        )
        assert error.message.startswith("Submodules are nested deeper than 16")


class Stop(Quiet):
    """Asks for the end as soon as something has happened."""

    def __init__(
        self, happened: threading.Event, before: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self._happened, self._before = happened, before

    def check(self) -> None:
        if self._happened.is_set():
            self._before()
            raise BuildCancelled("cancelled")


def processes(mark: str) -> list[int]:
    """All that was started with the mark in its environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def gone(mark: str) -> bool:
    """Whether all of them end: killed ones take a moment."""
    deadline = time.monotonic() + WAIT
    while processes(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class TestBounds:
    """What a source may take."""

    def test_large_repository_is_left_while_it_is_fetched(
        self,
        repository: Repository,
        git_http: GitHttp,
        source: Callable[..., GitSource],
        scratch: Path,
    ) -> None:
        """The server sends some of it and then holds on: whoever measures afterwards never comes to
        that.
        """
        repository.commit({"large": os.urandom(16 * MIB)})
        git_http.stall_after = 8 * MIB
        mark = uuid.uuid4().hex
        error = refused(source(max_bytes=4 * MIB, environment={"MARK": mark}), scratch)
        assert error.message.endswith("takes more than 4,194,304 bytes")
        assert "IMAGEMILL_SOURCE_MAX_BYTES" in error.hint
        assert git_http.left.wait(WAIT)
        assert gone(mark)

    def test_small_repository_with_large_files_is_refused(
        self, repository: Repository, source: Callable[..., GitSource], scratch: Path
    ) -> None:
        repository.commit({"zeros": bytes(64 * MIB)})
        assert "takes more than" in refused(source(max_bytes=8 * MIB), scratch).message

    def test_submodules_count_too(
        self,
        repository: Repository,
        new_repository: Repositories,
        source: Callable[..., GitSource],
        scratch: Path,
    ) -> None:
        other = new_repository()
        commit = other.commit({"large": os.urandom(2 * MIB)})
        repository.commit({"large": os.urandom(2 * MIB)})
        repository.commit(
            {".gitmodules": f'[submodule "x"]\n\tpath = sub\n\turl = ../{other.name}\n'}
        )
        repository.commit_index(("160000", commit, "sub"))
        source(max_bytes=5 * MIB).fetch(scratch, Quiet())
        assert (
            "takes more than"
            in refused(source("#submodules=true", max_bytes=5 * MIB), scratch).message
        )

    def test_short_commit_is_bounded_too(
        self, repository: Repository, git_http: GitHttp, source: Callable[..., GitSource]
    ) -> None:
        commit = repository.commit({"large": os.urandom(16 * MIB)})
        repository.git("config", "uploadpack.allowFilter", "false")
        with pytest.raises(UserError, match="takes more than 4,194,304 bytes"):
            source(f"@{commit[:8]}", max_bytes=4 * MIB).pinned(Quiet())

    def test_cancelled_fetch_leaves_no_process(
        self,
        repository: Repository,
        git_http: GitHttp,
        source: Callable[..., GitSource],
        scratch: Path,
    ) -> None:
        repository.commit({"large": os.urandom(4 * MIB)})
        git_http.stall_after = MIB
        mark = uuid.uuid4().hex
        seen: list[int] = []
        with pytest.raises(BuildCancelled):
            source(environment={"MARK": mark}).fetch(
                scratch, Stop(git_http.stalled, lambda: seen.extend(processes(mark)))
            )
        assert len(seen) > 2
        assert gone(mark)
        assert git_http.left.wait(WAIT)

    def test_cancelled_pin_leaves_no_process_and_no_folder(
        self,
        repository: Repository,
        git_http: GitHttp,
        source: Callable[..., GitSource],
        tmp_path: Path,
    ) -> None:
        repository.commit({"f": "1"})
        git_http.stall_after = 10
        mark = uuid.uuid4().hex
        with pytest.raises(BuildCancelled):
            source(environment={"MARK": mark}).pinned(Stop(git_http.stalled))
        assert gone(mark)
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("git-")] == []

    def test_full_disk_is_the_operators(
        self, repository: Repository, source: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        repository.commit({"large": os.urandom(2 * MIB)})
        with (
            hardship.small_disk(tmp_path / "disk", 1024) as disk,
            pytest.raises(OperatorError) as raised,
        ):
            source().fetch(disk / "scratch", Quiet())
        assert raised.value.message.startswith("There is no room left")

    def test_program_that_starts_others_without_end_is_ended(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a git does that fetches missing objects from a server that makes it miss more of
        them.
        """
        monkeypatch.setattr(process, "_COUNT_SECONDS", 0.05)
        mark = uuid.uuid4().hex
        script = f"for i in $(seq {MOST_PROCESSES + 50}); do sleep 60 & done; wait"
        with (
            Path(os.devnull).open("rb") as nothing,
            pytest.raises(UserError, match="more than 100 processes"),
        ):
            run(
                ["/bin/sh", "-c", script],
                {"MARK": mark, "PATH": os.environ["PATH"]},
                tmp_path,
                nothing,
                lambda: None,
                print,
                print,
            )
        assert gone(mark)


class TestSecrets:
    """Where the worker's credentials go, and where they do not."""

    @pytest.fixture
    def private(
        self, repository: Repository, git_http: GitHttp, worker: Worker, tmp_path: Path
    ) -> tuple[GitSource, Path]:
        """A source that only the token opens, and the folder with the token."""
        repository.commit({"f": "1", "large": os.urandom(MIB)})
        git_http.users = {"robot": TOKEN}
        folder = tmp_path / "credentials"
        folder.mkdir()
        (folder / git_http.address.replace(":", "_")).write_text(f"robot:{TOKEN}")
        return GitSource(
            f"git+{git_http.url}/{repository.name}",
            worker(credentials=folder, networks=("127.0.0.1/32",)),
        ), folder

    def test_token_is_in_no_argument_environment_file_or_log(
        self, private: tuple[GitSource, Path], git_http: GitHttp, scratch: Path
    ) -> None:
        source, _ = private
        with watching(TOKEN) as seen:
            progress = Quiet()
            pinned = source.pinned(progress)
            top = source.fetch(scratch, progress)
        assert seen == []
        assert TOKEN not in pinned + str(progress.lines) + repr(source.__dict__)
        assert [
            path
            for path in top.rglob("*")
            if path.is_file() and TOKEN.encode() in path.read_bytes()
        ] == []
        assert any(asked.authorization for asked in git_http.asked)

    def test_token_is_in_no_file_while_git_runs(
        self, private: tuple[GitSource, Path], git_http: GitHttp, scratch: Path
    ) -> None:
        source, _ = private
        git_http.stall_after = MIB // 2
        found: list[Path] = []

        def look() -> None:
            files = [
                path for path in scratch.rglob("*") if path.is_file() and not path.is_symlink()
            ]
            assert files
            found.extend(path for path in files if TOKEN.encode() in path.read_bytes())

        with pytest.raises(BuildCancelled):
            source.fetch(scratch, Stop(git_http.stalled, look))
        assert found == []

    def test_what_git_keeps_is_for_the_worker_alone(
        self, private: tuple[GitSource, Path], git_http: GitHttp, scratch: Path
    ) -> None:
        source, _ = private
        git_http.stall_after = MIB // 2
        modes: list[int] = []
        with pytest.raises(BuildCancelled):
            source.fetch(
                scratch,
                Stop(
                    git_http.stalled,
                    lambda: modes.extend(p.stat().st_mode & 0o777 for p in scratch.glob("git-*")),
                ),
            )
        assert modes == [0o700]

    def test_token_goes_to_no_host_that_a_server_redirects_to(
        self, private: tuple[GitSource, Path], git_http: GitHttp, git_root: Path, worker: Worker
    ) -> None:
        source, _ = private
        with git_servers.http(git_root) as other:
            other.users = {"robot": "something else"}
            git_http.users, git_http.redirect = {}, other.url
            with pytest.raises(PermissionDenied, match="the worker has none for it"):
                source.pinned(Quiet())
            assert other.asked
            assert {asked.authorization for asked in other.asked} == {""}

    def test_redirect_to_what_can_be_read_on_the_way_is_not_followed(
        self,
        repository: Repository,
        git_https: GitHttp,
        git_http: GitHttp,
        worker: Worker,
        certificate: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        repository.commit({"f": "1"})
        git_https.redirect = git_http.url
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        options = worker(
            environment={"GIT_SSL_CAINFO": str(certificate)}, networks=("127.0.0.1/32",)
        )
        with pytest.raises(UserError, match="leads to a transport that is refused"):
            GitSource(f"git+{git_https.url}/{repository.name}", options).pinned(Quiet())

    @pytest.mark.parametrize("moved", ["http://127.0.0.1:1", "http://169.254.169.254"])
    def test_redirect_to_an_inside_address_is_not_followed(
        self, repository: Repository, git_http: GitHttp, worker: Worker, moved: str
    ) -> None:
        git_http.redirect = moved
        plain = frozenset({git_http.address, "169.254.169.254", "127.0.0.1"})
        options = worker(insecure_hosts=plain)
        with pytest.raises(PermissionDenied, match="is not public"):
            GitSource(f"git+{git_http.url}/{repository.name}", options).pinned(Quiet())

    def test_repository_that_was_moved_is_found(
        self,
        repository: Repository,
        git_http: GitHttp,
        git_root: Path,
        worker: Worker,
        scratch: Path,
    ) -> None:
        repository.commit({"f": "moved"})
        with git_servers.http(git_root) as other:
            git_http.redirect = other.url
            options = worker(networks=("127.0.0.1/32",))
            top = GitSource(f"git+{git_http.url}/{repository.name}", options).fetch(
                scratch, Quiet()
            )
        assert (top / "f").read_text() == "moved"

    @pytest.mark.parametrize(
        "url", ["https://127.0.0.1:1/a.git", "https://localhost/a.git", "https://0x7f.1/a.git"]
    )
    def test_server_at_an_inside_address_is_not_asked(self, worker: Worker, url: str) -> None:
        options = worker(insecure_hosts=frozenset())
        with pytest.raises(PermissionDenied, match="is not public"):
            GitSource(f"git+{url}", options).pinned(Quiet())

    def test_submodule_at_an_inside_address_is_not_asked(
        self, repository: Repository, git_http: GitHttp, worker: Worker, scratch: Path
    ) -> None:
        commit = repository.commit({"f": "1"})
        repository.commit(
            {".gitmodules": '[submodule "a"]\n\tpath = a\n\turl = https://10.0.0.1/a.git\n'}
        )
        repository.commit_index(("160000", commit, "a"))
        options = worker(insecure_hosts=frozenset({git_http.address}), attended=True)
        source = GitSource(f"git+{git_http.url}/{repository.name}#submodules=true", options)
        with pytest.raises(PermissionDenied, match=r"10\.0\.0\.1 is not public"):
            source.fetch(scratch, Quiet())

    def test_lfs_server_that_the_repository_names_is_not_asked(
        self,
        repository: Repository,
        git_http: GitHttp,
        git_root: Path,
        source: Callable[..., GitSource],
        scratch: Path,
    ) -> None:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'1' * 64}\nsize 1\n"
        with git_servers.http(git_root) as other:
            config = f"[lfs]\n\turl = {other.url}/x/info/lfs\n\tskipdownloaderrors = true\n"
            repository.commit(
                {".lfsconfig": config, ".gitattributes": "*.bin filter=lfs\n", "a.bin": pointer}
            )
            assert "in Git LFS could not be had" in refused(source("#lfs=true"), scratch).message
            assert other.asked == []

    def test_server_that_repeats_what_it_was_sent(
        self, private: tuple[GitSource, Path], git_http: GitHttp, repository: Repository
    ) -> None:
        source, _ = private
        git_http.users = {"robot": "changed"}
        wire = base64.b64encode(f"robot:{TOKEN}".encode()).decode()
        git_http.refusal = "You sent {authorization}, that is " + TOKEN
        with pytest.raises(PermissionDenied) as raised:
            source.pinned(Quiet())
        assert wire in [asked.authorization.removeprefix("Basic ") for asked in git_http.asked]
        assert "You sent Basic …, that is …" in raised.value.message
        assert TOKEN not in str(raised.value)
        assert wire not in str(raised.value)

    def test_credentials_that_cannot_be_read_are_the_operators(
        self, private: tuple[GitSource, Path], worker: Worker, git_http: GitHttp
    ) -> None:
        source, folder = private
        (file,) = folder.iterdir()
        with pytest.raises(
            OperatorError, match="The worker cannot read its credentials in"
        ) as raised:
            GitSource(str(source.url), worker(credentials=file)).pinned(Quiet())
        assert raised.value.hint.startswith("let the user with the id")

    def test_ssh_key_is_in_no_argument_and_offered_alone(
        self,
        git_ssh: GitSsh,
        git_root: Path,
        repository: Repository,
        worker: Worker,
        tmp_path: Path,
        scratch: Path,
    ) -> None:
        repository.commit({"f": "1"})
        (tmp_path / "default").write_bytes(git_ssh.key.read_bytes())
        secret = git_ssh.key.read_text().splitlines()[2]
        options = worker(
            ssh_keys=tmp_path,
            known_hosts=git_ssh.known_hosts,
            environment={"SSH_AUTH_SOCK": "/tmp/agent"},
        )
        with watching(secret) as seen, watching("/tmp/agent") as agents:
            GitSource(f"git+{git_ssh.url}{git_root}/{repository.name}", options).fetch(
                scratch, Quiet()
            )
        assert seen == agents == []
        assert [
            path
            for path in scratch.rglob("*")
            if path.is_file() and secret.encode() in path.read_bytes()
        ] == []


@contextmanager
def watching(secret: str) -> Iterator[list[Any]]:
    """Gives the processes that have the secret among their arguments or variables, during the
    block, as `ps` does.
    """
    seen: list[Any] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            for path in (
                *Path("/proc").glob("[0-9]*/cmdline"),
                *Path("/proc").glob("[0-9]*/environ"),
            ):
                try:
                    if secret.encode() in path.read_bytes():
                        seen.append((path, path.with_name("cmdline").read_bytes()))
                except OSError:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def test_a_server_inside_is_asked_by_ssh_only_if_its_key_is_known(
    worker: Callable[..., SourceOptions], tmp_path: Path
) -> None:
    (tmp_path / "known").touch()
    git_servers.new_key(tmp_path / "default")
    with socket.create_server(("127.0.0.1", 0)) as inside:
        port = inside.getsockname()[1]
        options = worker(ssh_keys=tmp_path, known_hosts=tmp_path / "known")
        options = replace(options, insecure_hosts=frozenset())
        with pytest.raises(PermissionDenied, match=r"its address 127\.0\.0\.1 is not public"):
            GitSource(f"git+ssh://git@127.0.0.1:{port}/a/b", options).pinned(Quiet())
        inside.settimeout(0.1)
        with pytest.raises(TimeoutError):
            inside.accept()
