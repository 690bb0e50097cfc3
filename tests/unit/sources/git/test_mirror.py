"""A repository below a root is read as it is there, and nothing that it leads to."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from imagemill.errors import PermissionDenied, UserError
from imagemill.ports import Quiet
from imagemill.sources.git.source import GitSource
from imagemill.sources.options import SourceOptions


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def repository(folder: Path, content: str, *options: str) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main", *options)
    (folder / "Dockerfile").write_text(content)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def fetched(place: Path, tmp_path: Path, **more: Any) -> str:
    roots = (tmp_path / "roots",)
    path = {"PATH": "/usr/bin:/bin"}
    options = SourceOptions(roots=roots, scratch=tmp_path, environment=path, **more)
    source = GitSource(f"git+file://{place}@main", options)
    return (source.fetch(tmp_path / "scratch", Quiet()) / "Dockerfile").read_text()


@pytest.mark.parametrize("options", [(), ("--object-format=sha256",)])
@pytest.mark.parametrize("packed", [False, True])
def test_checkout_and_bare_repository_are_read(
    tmp_path: Path, options: tuple[str, ...], packed: bool
) -> None:
    place = repository(tmp_path / "roots/a", "inside", *options)
    git(place, "clone", "-q", "--bare", "--no-local", ".", str(tmp_path / "roots/bare.git"))
    if packed:
        git(place, "gc", "-q")
        git(place, "pack-refs", "--all")
    assert fetched(place, tmp_path) == "inside"
    assert fetched(tmp_path / "roots/bare.git", tmp_path) == "inside"


def test_what_is_read_is_what_the_policy_allows(tmp_path: Path) -> None:
    for name in ("a", "b"):
        repository(tmp_path / "roots" / name, name)
    link = tmp_path / "roots/link"

    def check(place: str) -> None:
        if not place.endswith("/roots/a"):
            raise PermissionDenied(place)

    link.symlink_to("a")
    assert fetched(link, tmp_path, check_place=check) == "a"
    link.unlink()
    link.symlink_to("b")
    with pytest.raises(PermissionDenied):
        fetched(link, tmp_path, check_place=check)


def test_a_file_as_large_as_it_likes_is_not_copied(tmp_path: Path) -> None:
    place = repository(tmp_path / "roots/a", "inside")
    with (place / ".git/packed-refs").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="takes more than"):
        fetched(place, tmp_path, max_bytes=8 << 20)


def lead_out(way: str, outside: Path, place: Path) -> None:
    """Make the repository at `place` lead to the one outside."""
    own = outside / ".git"
    if way == "a .git file":
        place.mkdir(parents=True)
        (place / ".git").write_text(f"gitdir: {own}\n")
    elif way == "a .git link":
        place.mkdir(parents=True)
        (place / ".git").symlink_to(own)
    elif way == "commondir":
        repository(place, "inside")
        (place / ".git/commondir").write_text(f"{own}\n")
    elif way == "alternates":
        repository(place, "inside")
        (place / ".git/objects/info/alternates").write_text(f"{own}/objects\n")
        (place / ".git/refs/heads/main").write_text(git(outside, "rev-parse", "HEAD") + "\n")
    else:
        repository(place, "inside")
        linked = place / ".git" / way
        linked.rename(place / "aside")
        linked.symlink_to(own / way)


@pytest.mark.parametrize(
    "way",
    ["a .git file", "a .git link", "commondir", "alternates", "objects", "refs/heads", "HEAD"],
)
def test_repository_that_leads_out_is_not_read(tmp_path: Path, way: str) -> None:
    outside = repository(tmp_path / "outside", "PRIVATE")
    place = tmp_path / "roots/a"
    lead_out(way, outside, place)
    with pytest.raises(
        (PermissionDenied, UserError), match=r"may lead out|no repository|no branch"
    ):
        fetched(place, tmp_path)
