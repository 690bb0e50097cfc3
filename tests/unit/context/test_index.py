"""What is remembered of a source's files never makes a manifest that a cold reading would not."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings

import trees
from imagemill import context
from imagemill.builders.graft.source import SourceFiles
from imagemill.context import index as indexing
from imagemill.context.index import Index, Memory, remove_unused
from imagemill.dockerfile.generate import Wishes
from imagemill.errors import UserError
from imagemill.ports import Quiet
from unit.context import changes

GRAIN_NS = 20_000_000
"""More than the clock of any file system that tests run on takes."""


def both(root: Path, memory: Memory) -> tuple[context.Manifest, context.Manifest]:
    """The manifest by what is remembered, and by reading everything."""
    return (
        context.manifest(root, None, Quiet(), memory),
        context.manifest(root, None, Quiet()),
    )


@given(rounds=changes.ROUNDS)
@settings(max_examples=60, deadline=None)
def test_whatever_changes_the_manifest_is_that_of_a_cold_reading(
    rounds: list[tuple[list[changes.Change], bool]],
) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.object(indexing, "GRAIN_NS", GRAIN_NS),
    ):
        root = Path(name) / "source"
        changes.start(root)
        memory = Memory(Path(name) / "indexes", root)
        for done, waits in rounds:
            for change in done:
                change(root)
            if waits:
                changes.pass_time(root, GRAIN_NS)
            for _ in range(2):
                warm, cold = both(root, memory)
                assert warm.sha256 == cold.sha256
                assert warm.entries == cold.entries
                assert bytes(warm) == bytes(cold)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source of which nothing changed lately."""
    root = trees.make(
        tmp_path / "source", {"Dockerfile": "FROM scratch\n", "a": "one", "d/b": "two", "l@": "a"}
    )
    return root


@pytest.fixture
def grain() -> Iterator[None]:
    with mock.patch.object(indexing, "GRAIN_NS", GRAIN_NS):
        yield


def read_in(root: Path, memory: Memory) -> list[str]:
    """The names of the files that a manifest makes us read."""
    names = []

    def read(descriptor: int, size: int) -> bytes:
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        return os.read(descriptor, size)

    with mock.patch.object(context, "read", read):
        context.manifest(root, None, Quiet(), memory)
    return names


@pytest.mark.usefixtures("grain")
def test_what_has_not_changed_is_not_read_again(source: Path, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "indexes", source)
    changes.pass_time(source, GRAIN_NS)
    assert sorted(read_in(source, memory)) == ["Dockerfile", "a", "b"]
    assert read_in(source, memory) == []
    (source / "a").write_text("two")
    changes.pass_time(source, GRAIN_NS)
    assert read_in(source, memory) == ["a"]
    (source / "new").write_text("")
    changes.pass_time(source, GRAIN_NS)
    assert read_in(source, memory) == ["new"]


def test_what_is_wanted_is_not_looked_at_and_checked_when_it_is_read(
    source: Path, tmp_path: Path
) -> None:
    memory = Memory(tmp_path / "indexes", source)
    hashed = context.manifest(source, None, Quiet(), memory)
    (source / "a").write_text("another")

    def read(sha256: str) -> context.Manifest:
        return context.manifest(
            source, None, Quiet(), memory, lambda manifest: manifest.sha256 == sha256
        )

    again = read(hashed.sha256)
    assert again.entries == hashed.entries
    with SourceFiles(source, again, Quiet()) as files:
        assert b"".join(files.chunks(b"d/b")) == b"two"
        with pytest.raises(UserError, match="changes while"):
            list(files.chunks(b"a"))
    (source / "Dockerfile").write_text("FROM scratch\nCOPY a /\n")
    assert read(hashed.sha256).entries != hashed.entries
    (source / "Dockerfile").write_text("FROM scratch\n")
    assert read("0" * 64).sha256 not in ("0" * 64, hashed.sha256)


@pytest.mark.usefixtures("grain")
def test_what_was_looked_at_ahead_is_not_looked_at_again_by_the_first_who_asks(
    source: Path, tmp_path: Path
) -> None:
    memory = Memory(tmp_path / "indexes", source, tmp_path / "ahead")
    changes.pass_time(source, GRAIN_NS)
    before = context.manifest(source, None, Quiet(), Memory(tmp_path / "indexes", source))
    memory.look_ahead()
    (source / "a").write_text("another")
    assert context.manifest(source, None, Quiet(), memory).sha256 == before.sha256
    assert context.manifest(source, None, Quiet(), memory).sha256 != before.sha256


@pytest.mark.usefixtures("grain")
@pytest.mark.parametrize(
    "change", [changes.swap("a", "two"), lambda root: (root / "d/new").touch(), None]
)
def test_what_has_changed_or_was_asked_for_is_not_told_ahead(
    source: Path, tmp_path: Path, change: changes.Change | None
) -> None:
    memory = Memory(tmp_path / "indexes", source, tmp_path / "ahead")
    changes.pass_time(source, GRAIN_NS)
    context.manifest(source, None, Quiet(), Memory(tmp_path / "indexes", source))
    if change:
        change(source)
    else:
        context.manifest(source, None, Quiet(), memory)
    memory.look_ahead()
    (source / "d/b").write_text("another")
    warm, cold = both(source, memory)
    assert warm.sha256 == cold.sha256


@pytest.mark.usefixtures("grain")
def test_what_was_looked_at_by_another_index_is_looked_at_again(
    source: Path, tmp_path: Path
) -> None:
    memory = Memory(tmp_path / "indexes", source, tmp_path / "ahead")
    changes.pass_time(source, GRAIN_NS)
    context.manifest(source, None, Quiet(), Memory(tmp_path / "indexes", source))
    memory.look_ahead()
    (source / "a").write_text("another")
    changes.pass_time(source, GRAIN_NS)
    after = context.manifest(source, None, Quiet(), Memory(tmp_path / "indexes", source))
    (source / "a").write_text("one")
    assert context.manifest(source, None, Quiet(), memory).sha256 != after.sha256


@pytest.mark.usefixtures("grain")
def test_two_dockerfiles_of_one_content_are_two(source: Path, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "indexes", source)
    (source / "other").write_text("FROM scratch\n")
    changes.pass_time(source, GRAIN_NS)
    for dockerfile in ("Dockerfile", "other", "Dockerfile"):
        cold = context.manifest(source, dockerfile, Quiet())
        for _ in range(2):
            warm = context.manifest(source, dockerfile, Quiet(), memory)
            assert warm.sha256 == cold.sha256


def test_what_changed_a_moment_ago_is_read_again(source: Path, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "indexes", source)
    assert "a" in read_in(source, memory)
    assert "a" in read_in(source, memory)


@pytest.mark.usefixtures("grain")
def test_a_swap_under_the_same_size_and_time_shows(source: Path, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "indexes", source)
    changes.pass_time(source, GRAIN_NS)
    before = context.manifest(source, None, Quiet(), memory).sha256
    changes.swap("a", "two")(source)
    assert context.manifest(source, None, Quiet(), memory).sha256 != before


@pytest.mark.parametrize("damage", [b"", b"imagemill index 1\n", b"x" * 400])
def test_a_damaged_index_counts_for_nothing(source: Path, tmp_path: Path, damage: bytes) -> None:
    memory = Memory(tmp_path / "indexes", source)
    expected = context.manifest(source, None, Quiet(), memory).sha256
    [path] = (tmp_path / "indexes").iterdir()
    path.write_bytes(damage)
    assert context.manifest(source, None, Quiet(), memory).sha256 == expected


def test_a_bit_that_is_flipped_is_noticed(source: Path, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "indexes", source)
    context.manifest(source, None, Quiet(), memory)
    [path] = (tmp_path / "indexes").iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        Index.unpack(bytes(data))


def test_an_index_that_cannot_be_written_is_done_without(source: Path, tmp_path: Path) -> None:
    (tmp_path / "indexes").write_text("a file where the folder should be")
    memory = Memory(tmp_path / "indexes", source)
    warm, cold = both(source, memory)
    assert warm.sha256 == cold.sha256


def test_a_source_that_is_not_fit_is_refused_with_an_index_too(
    source: Path, tmp_path: Path
) -> None:
    memory = Memory(tmp_path / "indexes", source)
    context.manifest(source, None, Quiet(), memory)
    os.mkfifo(source / "pipe")
    with pytest.raises(UserError, match="a FIFO"):
        context.manifest(source, None, Quiet(), memory)


def test_notes_are_those_of_a_cold_reading(source: Path, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "indexes", source)
    (source / ".git").mkdir()
    for _ in range(2):
        warm, cold = both(source, memory)
        assert context.notes(warm) == context.notes(cold) != ()


def test_warnings_are_those_of_a_cold_reading(tmp_path: Path) -> None:
    files = {"requirements.txt": ".", "setup.py": "", "app.py": ""}
    source, memory = trees.make(tmp_path / "source", files), Memory(tmp_path / "indexes", tmp_path)
    for _ in range(2):
        warm = context.manifest(source, Wishes(), Quiet(), memory)
        [warning] = context.costs(warm)
        assert "built by the builder, since requirements.txt:1" in warning
        assert context.costs(context.manifest(source, Wishes(), Quiet())) == (warning,)


def test_indexes_that_nobody_uses_are_removed(source: Path, tmp_path: Path) -> None:
    context.manifest(source, None, Quiet(), Memory(tmp_path / "indexes", source))
    [path] = (tmp_path / "indexes").iterdir()
    remove_unused(tmp_path / "indexes")
    assert path.exists()
    old = path.stat().st_mtime - indexing.KEEP_SECONDS - 60
    os.utime(path, (old, old))
    remove_unused(tmp_path / "indexes")
    assert not path.exists()
