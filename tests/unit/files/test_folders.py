"""Folders whose content nobody has checked are measured and removed as they are."""

import os
from pathlib import Path

import pytest

import trees
from imagemill.errors import BuildCancelled, UserError
from imagemill.files import folders
from imagemill.files.tree import MAX_DEPTH
from imagemill.ports import Quiet


class Cancelled(Quiet):
    def check(self) -> None:
        raise BuildCancelled("The build was cancelled")


def nest(top: Path, depth: int) -> Path:
    """Make `depth` folders, each in the one before; a path cannot name the last one of very
    many.
    """
    top.mkdir()
    folder = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("a", dir_fd=folder)
        below = os.open("a", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("file", os.O_CREAT, dir_fd=folder))
    os.close(folder)
    return top


def test_all_that_is_in_a_folder_counts_and_what_links_lead_to_does_not(tmp_path: Path) -> None:
    outside = trees.make(tmp_path / "outside", {"large": b"x" * (1 << 20)})
    empty = trees.make(tmp_path / "empty", {"a/b/": None})
    full = trees.make(
        tmp_path / "full", {"a/b/": None, "a/b/c": b"x" * 100_000, "d": b"y" * 50_000}
    )
    linked = trees.make(
        tmp_path / "linked", {"a/b/": None, "a/b/c@": str(outside), "d@": str(outside / "large")}
    )

    least = folders.size(empty, Quiet())
    assert 150_000 <= folders.size(full, Quiet()) - least <= 200_000
    assert folders.size(linked, Quiet()) - least < 20_000


def test_a_folder_deeper_than_builds_can_read_is_not_measured_on(tmp_path: Path) -> None:
    assert folders.size(nest(tmp_path / "deep", MAX_DEPTH - 1), Quiet()) > 0
    with pytest.raises(UserError, match="nested deeper than"):
        folders.size(nest(tmp_path / "deeper", MAX_DEPTH), Quiet())


def test_measuring_and_removing_end_when_they_are_to(tmp_path: Path) -> None:
    folder = trees.make(tmp_path / "folder", {"a": "b"})
    with pytest.raises(BuildCancelled):
        folders.size(folder, Cancelled())
    with pytest.raises(BuildCancelled):
        folders.remove(folder, Cancelled())
    assert folder.exists()


def test_a_folder_is_removed_and_what_links_in_it_lead_to_is_not(tmp_path: Path) -> None:
    outside = trees.make(tmp_path / "outside", {"a/kept": "kept"})
    entries = {
        "a/b/c/d": "1",
        "a/b/e": "2",
        "a/f/": None,
        "g@": str(outside),
        "a/h@": str(outside),
        b"\xff/i": "3",
    }
    folder = trees.make(tmp_path / "folder", entries)
    folders.remove(folder, Quiet())
    folders.remove(folder, Quiet())

    assert list(tmp_path.iterdir()) == [outside]
    assert (outside / "a/kept").read_text() == "kept"


def test_folders_nested_thousands_deep_are_removed(tmp_path: Path) -> None:
    folders.remove(nest(tmp_path / "deep", 2000), Quiet())

    assert list(tmp_path.iterdir()) == []
