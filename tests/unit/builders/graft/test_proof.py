"""What is proved, and what needs no proof since nothing that it reads has changed."""

import hashlib
from collections.abc import Mapping

import pytest

from imagemill.builders.graft import Refusal
from imagemill.builders.graft.copying import Context
from imagemill.builders.graft.layers import FileView, Layer, Node
from imagemill.builders.graft.proof import Suffix, remade
from imagemill.builders.graft.recipe import Copy, Setting, WorkingFolder
from imagemill.context import Entry

FOLDER = Node("dir", 0o755, 0, 0)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def context(names: Mapping[str, str] | None = None, *, cut: int = 64, **files: str) -> Context:
    files |= names or {}
    return Context(
        Entry("file", path.encode(), len(text), digest(text)[:cut])
        for path, text in sorted(files.items())
    )


def layer(names: Mapping[str, str] | None = None, uid: int = 0, **files: str) -> Layer:
    files |= names or {}
    nodes = {
        path: Node("file", 0o644, uid, uid, size=len(text), sha256=digest(text))
        for path, text in files.items()
    }
    return Layer(nodes, has_contents=True)


OPERATIONS = (
    WorkingFolder(2, "/"),
    Copy(3, "COPY", ("a",), "a"),
    Setting(4, "ENV"),
    Copy(5, "COPY", ("b",), "b"),
)
BELOW = layer(etc="x")
# Not what our rules make of it, as of a builder whose rules we do not know.
ODD = layer(uid=7, a="1")


def made(old: Context, new: Context, first: Layer = ODD, *, by_buildkit: bool = True) -> list[int]:
    """The instructions that make another layer."""
    below = FileView()
    below.apply(BELOW)
    suffix = Suffix(OPERATIONS, (None, first, None, layer(b="2")), "/", by_buildkit)
    found = remade(below, suffix, old, new, lambda entry: False)
    return [number for number, changes in enumerate(found) if changes is not None]


def test_of_what_is_before_the_first_change_nothing_has_to_be_proved() -> None:
    assert made(context(cut=16, a="1", b="2"), context(a="1", b="3")) == [3]
    assert made(context(cut=16, a="1", b="2"), context(a="1", b="2")) == []


def test_what_reads_the_change_and_what_comes_after_it_is_proved() -> None:
    with pytest.raises(Refusal, match="line 3"):
        made(context(cut=16, a="1", b="2"), context(a="4", b="2"))
    plain = layer(a="1")
    assert made(context(cut=16, a="1", b="2"), context(a="4", b="2"), plain) == [1]
    assert made(context(cut=16, a="1", b="2"), context(a="4", b="3"), plain) == [1, 3]


def test_a_digest_that_only_begins_alike_is_another_file() -> None:
    old, alike = context(cut=16, a="1", b="2"), digest("1")[:16] + digest("another")[16:]
    same_size = Context([Entry("file", b"a", 1, alike), Entry("file", b"b", 1, digest("2"))])
    assert made(old, same_size, layer(a="1")) == [1]


def test_what_another_builder_makes_is_proved_from_the_first_instruction() -> None:
    with pytest.raises(Refusal, match="line 3"):
        made(context(cut=16, a="1", b="2"), context(a="1", b="3"), by_buildkit=False)


def test_folders_above_what_is_made_anew_are_in_its_layer_as_they_are() -> None:
    # Docker's overlay driver makes those of its own liking where a layer does not name them.
    own, unknown = Node("dir", 0o700, 5, 6), Node("dir", -1, -1, -1)
    suffix = Suffix((Copy(1, "COPY", ("a",), "/x/y/z/"),), (layer({"x/y/z/a": "1"}),), "/")

    def made(folders: dict[str, Node]) -> dict[str, Node]:
        below = FileView()
        below.apply(Layer(folders))
        old, new = context(cut=16, a="1"), context(a="2")
        (found,) = remade(below, suffix, old, new, lambda entry: False)
        assert found is not None
        return {path: placed.node for path, placed in found.items() if path != "x/y/z/a"}

    folders = {"x": unknown, "x/y": own, "x/y/z": FOLDER, "other": own}
    assert made(folders) == {"x/y": own, "x/y/z": FOLDER}
    with pytest.raises(Refusal, match="/x/y has attributes"):
        made({**folders, "x/y": own._replace(extra=True)})


def test_a_layer_that_names_a_folder_as_it_was_before_is_made_anew() -> None:
    own = Node("dir", 0o700, 9, 9)
    operations = (Copy(1, "COPY", ("d",), "/x/"), Copy(2, "COPY", ("f",), "/x/e/"))
    layers = (
        layer({"x/a": "1"}),
        Layer({"x/e": own, **layer({"x/e/f": "2"}).entries}, (), (), True),
    )
    old = [Entry("dir", b"d"), Entry("file", b"d/a", 1, digest("1"))]
    code = Entry("file", b"f", 1, digest("2"))
    below = FileView()
    below.apply(Layer({"x": FOLDER, "x/e": own}))
    new = Context([*old, Entry("dir", b"d/e"), code])
    suffix = Suffix(operations, layers, "/")
    first, second = remade(below, suffix, Context([*old, code]), new, lambda entry: False)
    assert first is not None
    assert second is not None
    assert first["x/e"].node == second["x/e"].node == FOLDER


@pytest.mark.parametrize("path", ["proc/x", "var/run/x", "etc/hosts", "tmp/apt-key-gpghome.x/y"])
def test_where_another_builder_may_leave_something_out_nothing_is_put(path: str) -> None:
    operation = (Copy(1, "COPY", (".",), "/"),)
    old, new = context(cut=16, a="1"), context({path: "2"}, a="1")
    for by_buildkit in (True, False):
        suffix = Suffix(operation, (layer(a="1"),), "/", by_buildkit)
        below = FileView()
        below.apply(Layer({"proc": FOLDER, "var/run": FOLDER, "etc": FOLDER}))
        below.apply(Layer({"tmp/apt-key-gpghome.x": FOLDER}))
        if by_buildkit:
            assert remade(below, suffix, old, new, lambda entry: False)[0]
            continue
        with pytest.raises(Refusal, match="leave out"):
            remade(below, suffix, old, new, lambda entry: False)


def test_a_workdir_of_a_user_by_name_that_makes_nothing_needs_no_user() -> None:
    operations = (Copy(1, "COPY", ("d",), "/"), WorkingFolder(2, "/x", "app"))
    suffix = Suffix(operations, (Layer({"x": FOLDER}, has_contents=True), None), "/")
    old = Context([Entry("dir", b"d"), Entry("dir", b"d/x")])

    def made(*folders: bytes) -> list[int]:
        new = Context([Entry("dir", folder) for folder in folders])
        found = remade(FileView(), suffix, old, new, lambda entry: False)
        return [number for number, changes in enumerate(found) if changes is not None]

    assert made(b"d", b"d/x", b"d/y") == [0]
    with pytest.raises(Refusal, match="makes other folders"):
        made(b"d", b"d/y")


def test_whom_a_name_means_is_not_known_where_names_are_copied_before() -> None:
    names = {"etc/passwd": "x"}
    operations = (
        Copy(1, "COPY", ("etc/passwd",), "/etc/passwd"),
        Copy(2, "COPY", ("code",), "/code", "app"),
    )
    suffix = Suffix(operations, (layer(names), layer(uid=7, code="1")), "/")

    def made(new: Context) -> list[int]:
        below = FileView()
        below.apply(Layer({"etc": FOLDER}))
        found = remade(below, suffix, context(names, cut=16, code="1"), new, lambda entry: False)
        return [number for number, changes in enumerate(found) if changes is not None]

    assert made(context(names, code="2")) == [1]
    with pytest.raises(Refusal, match="app"):
        made(context({"etc/passwd": "y"}, code="1"))
