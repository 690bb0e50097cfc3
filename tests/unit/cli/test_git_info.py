"""What git knows of a folder is found without running anything that the folder names."""

import os
import subprocess
from pathlib import Path

import pytest

import trees
from imagemill.cli.git_info import GitInfo, checkout


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = trees.make(tmp_path / "checkout", {"a": "1", "part/b": "2"})
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    git(folder, "remote", "add", "origin", "https://me:word@git.example.com/team/a.git")
    return folder


def head(folder: Path) -> GitInfo:
    return GitInfo(git(folder, "rev-parse", "HEAD"), "https://git.example.com/team/a.git")


@pytest.mark.parametrize("part", [".", "part"])
def test_commit_and_address_are_known(folder: Path, part: str) -> None:
    assert checkout(folder / part) == head(folder)
    git(folder, "pack-refs", "--all")
    git(folder, "gc", "-q")
    assert checkout(folder / part) == head(folder)


@pytest.mark.parametrize("path", ["a", "new", "part/b"])
def test_nothing_is_known_of_what_was_changed(folder: Path, path: str) -> None:
    (folder / path).write_text("changed")
    assert checkout(folder) == GitInfo()


def test_change_beside_a_folder_does_not_count_for_it(folder: Path) -> None:
    (folder / "a").write_text("changed")
    assert checkout(folder / "part") == head(folder)
    trees.make(folder, {"other/x": ""})
    assert checkout(folder / "other") == GitInfo()


def test_worktree_is_known(folder: Path, tmp_path: Path) -> None:
    git(folder, "worktree", "add", "-q", "-b", "second", str(tmp_path / "worktree"))
    git(tmp_path / "worktree", "commit", "-q", "--allow-empty", "-m", "second")
    assert checkout(tmp_path / "worktree") == head(tmp_path / "worktree")


def test_sha256_is_known(tmp_path: Path) -> None:
    trees.make(tmp_path / "x", {"a": ""})
    git(tmp_path / "x", "init", "-q", "--object-format=sha256")
    git(tmp_path / "x", "add", ".")
    git(tmp_path / "x", "commit", "-qm", "first")
    assert len(checkout(tmp_path / "x").revision or "") == 64


@pytest.mark.parametrize(
    "config",
    [
        ("filter.x.clean", "touch {}; cat"),
        ("filter.x.process", "touch {}"),
        ("core.fsmonitor", "touch {}"),
        ("core.hooksPath", "{}-hooks"),
        ("core.sshCommand", "touch {}"),
        ("core.pager", "touch {}; cat"),
        ("core.alternateRefsCommand", "touch {}"),
        ("include.path", "{}-config"),
        ("remote.origin.url", "ext::touch {}"),
    ],
)
def test_nothing_of_its_config_is_run(
    folder: Path, tmp_path: Path, config: tuple[str, str]
) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "ran-config").write_text(f'[filter "x"]\n\tclean = "touch {ran}; cat"\n')
    trees.make(tmp_path / "ran-hooks", {"post-index-change*": f"#!/bin/sh\ntouch {ran}\n"})
    git(folder, "config", config[0], config[1].format(ran))
    (folder / ".git/info/attributes").write_text("* filter=x\n")
    (folder / ".gitattributes").write_text("* filter=x\n")
    (folder / "a").touch()
    checkout(folder)
    (folder / "a").write_text("2")
    checkout(folder)
    assert not ran.exists()


def test_pipe_in_place_of_a_file_is_not_waited_for(folder: Path) -> None:
    (folder / ".git/HEAD").unlink()
    os.mkfifo(folder / ".git/HEAD")
    assert checkout(folder) == GitInfo()
