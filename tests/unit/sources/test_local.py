"""What was checked of a local source is what is read, whatever its path comes to mean."""

import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

import trees
from imagemill import context
from imagemill.dockerfile.generate import Wishes
from imagemill.errors import PermissionDenied, UserError
from imagemill.ports import Quiet
from imagemill.sources.local import LocalSource
from imagemill.sources.options import SourceOptions


def swapped(folder: Path, by: Path) -> None:
    """Put a link to another folder in the place of one."""
    folder.rename(folder.with_name("aside"))
    folder.symlink_to(by)


@pytest.mark.parametrize("dockerfile", [None, Wishes()])
def test_folder_that_is_swapped_afterwards_is_read_as_it_was(
    tmp_path: Path, dockerfile: Wishes | None
) -> None:
    files = {"main.py": "1"} if dockerfile else {"Dockerfile": "FROM scratch\n"}
    trees.make(tmp_path / "roots/a/source", files)
    outside = trees.make(tmp_path / "outside", {f"source/{name}": "SECRET" for name in files})
    source = LocalSource(str(tmp_path / "roots/a/source"), options(tmp_path / "roots"))
    folder = source.fetch(tmp_path / "scratch", Quiet())
    before = context.manifest(folder, dockerfile, Quiet())
    swapped(tmp_path / "roots/a", outside)
    assert (tmp_path / "roots/a/source" / next(iter(files))).read_text() == "SECRET"
    assert context.manifest(folder, dockerfile, Quiet()) == before
    copied = context.copy(folder, dockerfile, tmp_path / "copy", Quiet())
    assert copied == before


def test_what_is_read_is_what_the_policy_allows(tmp_path: Path) -> None:
    for name in ("a", "b"):
        trees.make(tmp_path / "roots" / name, {"Dockerfile": ""})
    (tmp_path / "roots/link").symlink_to("a")
    asked: list[str] = []
    allowed = replace(options(tmp_path / "roots"), check_place=asked.append)
    source = LocalSource(str(tmp_path / "roots/link"), allowed)
    place = source.place
    (tmp_path / "roots/link").unlink()
    (tmp_path / "roots/link").symlink_to("b")
    source.fetch(tmp_path / "scratch", Quiet())
    assert (place, asked) == (str(tmp_path / "roots/a"), [str(tmp_path / "roots/b")])


def options(root: Path) -> SourceOptions:
    return SourceOptions(roots=(root,))


def test_link_below_the_roots_that_stays_there_is_followed(tmp_path: Path) -> None:
    trees.make(tmp_path / "roots/a", {"Dockerfile": ""})
    (tmp_path / "roots/b").symlink_to("a")
    folder = LocalSource(str(tmp_path / "roots/b"), options(tmp_path / "roots")).fetch(
        tmp_path / "scratch", Quiet()
    )
    assert context.manifest(folder, None, Quiet()).files == 1


def test_link_that_leads_out_of_the_roots_is_refused(tmp_path: Path) -> None:
    trees.make(tmp_path / "outside", {"Dockerfile": ""})
    trees.make(tmp_path / "roots", {})
    (tmp_path / "roots/a").symlink_to(tmp_path / "outside")
    with pytest.raises(PermissionDenied):
        LocalSource(str(tmp_path / "roots/a"), options(tmp_path / "roots")).fetch(
            tmp_path / "scratch", Quiet()
        )


@pytest.mark.parametrize("name", ["nothing", "pipe"])
def test_what_is_neither_folder_nor_file_is_told(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="There is no folder and no archive at"):
        LocalSource(str(tmp_path / name), options(tmp_path)).fetch(tmp_path / "scratch", Quiet())


def test_folder_leaves_no_descriptor_open(tmp_path: Path) -> None:
    trees.make(tmp_path / "a", {"Dockerfile": ""})
    before = sum(1 for _ in Path("/dev/fd").iterdir())
    folder = LocalSource(str(tmp_path / "a"), options(tmp_path)).fetch(tmp_path / "x", Quiet())
    assert sum(1 for _ in Path("/dev/fd").iterdir()) == before + 1
    del folder
    assert sum(1 for _ in Path("/dev/fd").iterdir()) == before


@pytest.mark.parametrize(
    "form", ["{}#subdirectory=repo-main/serve", "file://{}#subdirectory=repo-main/serve/"]
)
def test_folder_in_an_archive_may_be_meant(tmp_path: Path, form: str) -> None:
    """Hosts' own archives have one folder at their top."""
    trees.make(tmp_path / "tree", {"repo-main/serve/Dockerfile": "", "repo-main/b": "", "l@": "/"})
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "tree", "")
    text = form.format(tmp_path / "a.tar.gz")
    folder = LocalSource(text, options(tmp_path)).fetch(tmp_path / "x", Quiet())
    assert [entry.path for entry in context.manifest(folder, None, Quiet()).entries] == [
        b"Dockerfile"
    ]
    with pytest.raises(UserError, match="There is no folder 'l' in"):
        LocalSource(f"file://{tmp_path}/a.tar.gz#subdirectory=l", options(tmp_path)).fetch(
            tmp_path / "y", Quiet()
        )
