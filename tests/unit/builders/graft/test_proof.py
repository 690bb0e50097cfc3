"""What is proved, and what needs no proof since nothing that it reads has changed."""

import hashlib

import pytest

from imagemill.builders.graft import Refusal
from imagemill.builders.graft.copying import Context
from imagemill.builders.graft.layers import FileView, Layer, Node
from imagemill.builders.graft.proof import Suffix, remade
from imagemill.builders.graft.recipe import Copy, Setting, WorkingFolder
from imagemill.context import Entry


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def context(*, cut: int = 64, **files: str) -> Context:
    return Context(
        Entry("file", path.encode(), len(text), digest(text)[:cut])
        for path, text in sorted(files.items())
    )


def layer(uid: int = 0, **files: str) -> Layer:
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


def test_whom_a_name_means_is_not_known_where_names_are_copied_before() -> None:
    before, code = {"etc/passwd": "x"}, {"code": "1"}
    operations = (
        Copy(1, "COPY", ("etc/passwd",), "/etc/passwd"),
        Copy(2, "COPY", ("code",), "/code", "app"),
    )
    etc = Layer({"etc": Node("dir", 0o755, 0, 0)}, has_contents=True)
    suffix = Suffix(operations, (layer(**before), layer(7, **code)), "/")

    def made(**files: str) -> list[int]:
        below = FileView()
        below.apply(etc)
        old = context(cut=16, **before, **code)
        found = remade(below, suffix, old, context(**files), lambda entry: False)
        return [number for number, changes in enumerate(found) if changes is not None]

    assert made(**before, code="2") == [1]
    with pytest.raises(Refusal, match="app"):
        made(**code, **{"etc/passwd": "y"})
