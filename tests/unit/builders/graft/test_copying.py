"""What COPY does, where BuildKit does something else than one might think.

That all of it is as BuildKit does it is shown by tests/integration/test_graft_differential.py.
"""

import pytest

from imagemill.builders.graft import Refusal
from imagemill.builders.graft.copying import (
    ROOT,
    Context,
    Files,
    Owner,
    destination_of,
    owner_of,
)
from imagemill.builders.graft.layers import Node
from imagemill.builders.graft.recipe import Copy
from imagemill.context import Entry

FOLDER = Node("dir", 0o755, 0, 0)
CONTEXT = Context(
    [
        Entry("file", b"a.py", 1, "11"),
        Entry("dir", b"d"),
        Entry("exec", b"d/b.py", 2, "22"),
        Entry("dir", b"d/e"),
        Entry("link", b"l", target=b"a.py"),
        Entry("dir", b"w"),
        Entry("file", b"w/.wh.a", 1, "33"),
    ]
)


def copied(
    sources: tuple[str, ...],
    destination: str,
    nodes: dict[str, Node] | None = None,
    *,
    mode: int | None = None,
    keyword: str = "COPY",
    owner: Owner = ROOT,
) -> dict[str, Node]:
    """What a COPY changes in an image of these nodes, whose working folder is /w."""
    files = Files(dict(nodes or {}), lambda entry: entry.path == b"a.py")
    operation = Copy(1, keyword, sources, destination, mode=mode)
    files.copy(CONTEXT, operation, destination_of(operation, "/w"), owner)
    return {path: placed.node for path, placed in files.changes.items()}


def test_of_a_folder_the_content_is_copied_and_folders_on_the_way_are_made() -> None:
    assert copied(("d",), "x/y", owner=Owner(5, 6)) == {
        "w": Node("dir", 0o755, 5, 6),
        "w/x": Node("dir", 0o755, 5, 6),
        "w/x/y": Node("dir", 0o755, 5, 6),
        "w/x/y/b.py": Node("file", 0o755, 5, 6, "", 2, "22"),
        "w/x/y/e": Node("dir", 0o755, 5, 6),
    }


def test_a_link_in_the_image_is_followed_and_a_folder_there_keeps_its_owner() -> None:
    own = Node("dir", 0o700, 1000, 1000)
    nodes = {"srv": FOLDER, "srv/app": own, "app": Node("link", 0o777, 0, 0, "/srv/app")}
    found = copied(("d",), "/app", nodes)
    assert set(found) == {"srv/app/b.py", "srv/app/e"}


def test_a_folder_below_the_copied_one_gets_the_owner_and_mode_of_the_source() -> None:
    nodes = {"x": FOLDER, "x/e": Node("dir", 0o700, 9, 9)}
    assert copied(("d",), "/x", nodes)["x/e"] == FOLDER
    assert "x/e" not in copied(("d",), "/x", {**nodes, "x/e": FOLDER})


def test_a_file_goes_into_a_folder_that_is_there_or_is_meant() -> None:
    assert set(copied(("a.py",), "/x")) == {"x"}
    assert set(copied(("a.py",), "/x/")) == {"x", "x/a.py"}
    assert set(copied(("a.py",), "/x", {"x": FOLDER})) == {"x/a.py"}


def test_patterns_take_what_is_right_there() -> None:
    assert set(copied(("*.py", "d/*"), "/x/")) == {"x", "x/a.py", "x/b.py"}


def test_a_mode_holds_for_files_and_folders_but_not_for_those_on_the_way() -> None:
    found = copied(("d",), "/x", mode=0o640)
    assert found["x"].mode == 0o755
    assert {found["x/e"].mode, found["x/b.py"].mode} == {0o640}


@pytest.mark.parametrize(
    ("sources", "nodes"),
    [
        (("a.py",), {"x": FOLDER, "x/a.py": FOLDER}),
        (("d",), {"x": FOLDER, "x/e": Node("file", 0o644, 0, 0)}),
        (("d",), {"x": FOLDER, "x/e": Node("link", 0o777, 0, 0, "/")}),
        (("d",), {"x": Node("file", 0o644, 0, 0)}),
        (("d",), {"x": Node("link", 0o777, 0, 0, "x")}),
        (("d",), {"x": FOLDER, "x/e": FOLDER._replace(mode=0o700, extra=True)}),
        (("w",), {}),
        (("missing",), {}),
        (("l",), {}),
        (("d/[b].py",), {}),
        (("*/*.py",), {}),
    ],
)
def test_what_buildkit_refuses_or_we_do_not_read_is_refused(
    sources: tuple[str, ...], nodes: dict[str, Node]
) -> None:
    with pytest.raises(Refusal):
        copied(sources, "/x/", nodes)


def test_a_folder_that_is_made_where_the_group_is_passed_on_is_refused() -> None:
    nodes = {"x": FOLDER._replace(mode=0o2775)}
    assert "x/e" in copied(("d",), "/x/", nodes)
    with pytest.raises(Refusal, match="passes on its group"):
        copied(("d",), "/x/y/", nodes)


def test_an_added_archive_is_refused() -> None:
    assert copied(("d", "d/b.py"), "/x/", keyword="ADD")
    with pytest.raises(Refusal):
        copied(("a.py",), "/x", keyword="ADD")


def seen(pattern: str) -> set[bytes]:
    return {path for part in CONTEXT.seen(pattern) for path in part.paths}


def test_what_an_instruction_may_read_is_rather_too_much() -> None:
    everything = seen(".")
    assert len(everything) == 7
    assert seen("d") == {b"d", b"d/b.py", b"d/e"}
    assert seen("d/*.p?") == {b"d/b.py"}
    assert seen("d/[b].py") == {b"d", b"d/b.py", b"d/e"}
    assert seen("*.py") == {b"a.py"}
    assert seen("*/*.py") == everything
    assert seen("?") == everything
    assert seen("[a].py") == everything
    assert seen("l") == everything
    assert seen("l/x") == everything
    assert seen("nothing") == set()


@pytest.mark.parametrize(
    ("owner", "found"),
    [
        (None, ROOT),
        ("5", Owner(5, 5)),
        ("5:6", Owner(5, 6)),
        ("app", None),
        ("5:app", None),
        ("5:", None),
        ("٣", None),
    ],
)
def test_owners_are_numbers_or_not_known(owner: str | None, found: Owner | None) -> None:
    assert owner_of(Copy(1, "COPY", ("a",), "/", owner)) == found
