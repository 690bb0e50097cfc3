"""Which folder of a source is its top."""

from pathlib import Path

import pytest

import trees
from imagemill.errors import UserError
from imagemill.sources.top import meant


@pytest.mark.parametrize(
    ("files", "subdirectory", "found"),
    [
        ({"p-main/Dockerfile": ""}, "", "p-main"),
        ({"p/Dockerfile": "", "__MACOSX/._p": "", ".DS_Store": "", "._p": ""}, "", "p"),
        ({"p/a/b": "", "p/a/c": ""}, "", "p"),  # one folder, and not as far as there is but one
        ({"p/a/b": ""}, "a", "p/a"),
        ({"p/a/b": ""}, "p/a", "p/a"),
        ({"p/p/b": ""}, "p", "p"),  # from the archive's own top first
        ({"p/a/b": ""}, ".", ""),
        ({"p/Dockerfile": "", "Dockerfile": ""}, "", ""),
        ({"p/Dockerfile": "", ".dockerignore": ""}, "", ""),
        ({"a/x": "", "b/x": ""}, "", ""),
        ({"Dockerfile": ""}, "", ""),
        ({"p@": "/etc"}, "", ""),  # a link is no folder
    ],
)
def test_archive_begins_in_the_one_folder_at_its_top(
    tmp_path: Path, files: dict[str, str], subdirectory: str, found: str
) -> None:
    trees.make(tmp_path, files)
    assert meant(tmp_path, subdirectory, "x", unpacked=True) == tmp_path / found


def test_folder_is_as_it_is(tmp_path: Path) -> None:
    trees.make(tmp_path, {"p/a/Dockerfile": ""})
    assert meant(tmp_path, "", "x", unpacked=False) == tmp_path
    with pytest.raises(UserError, match="There is no folder 'a' in x"):
        meant(tmp_path, "a", "x", unpacked=False)


@pytest.mark.parametrize(
    ("subdirectory", "hint"),
    [("q", "there are a"), ("a/q", "there are b"), ("p/q", "there are a"), ("a/b/f", "leave out")],
)
def test_folders_that_there_are_are_told(tmp_path: Path, subdirectory: str, hint: str) -> None:
    trees.make(tmp_path, {"p/a/b/f": ""})
    with pytest.raises(UserError) as raised:
        meant(tmp_path, subdirectory, "x", unpacked=True)
    assert raised.value.hint.startswith(hint)
