"""A context folder that is updated in place holds what a new copy would, and BuildKit cannot take
a file in it for one that it had before.
"""

import os
import stat
import tempfile
import threading
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings

import trees
from imagemill import context
from imagemill.builders.graft.source import SourceFiles
from imagemill.context import Manifest, update
from imagemill.context import index as indexing
from imagemill.context.index import Memory
from imagemill.context.mirrors import FolderClaim, MirroredTree, Mirrors
from imagemill.context.tarball import MTIME
from imagemill.errors import UserError
from imagemill.ports import Quiet
from unit.context import changes

GRAIN_NS = 20_000_000


def accept(_: Manifest) -> None: ...


def held(folder: Path) -> dict[str, tuple[int, bytes, int]]:
    """Path of all that is in a folder: its mode, its content or target, and its time in seconds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = b""
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = (status.st_mode, content, int(status.st_mtime))
    return found


def claim(mirrors: Mirrors, root: Path, build: str = "build", memory: Memory | None = None) -> str:
    return mirrors.claim(
        FolderClaim("source", build), MirroredTree(root, None, memory), accept, Quiet()
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return trees.make(
        tmp_path / "source", {"Dockerfile": "FROM scratch\n", "a": "one", "d/b": "two", "l@": "a"}
    )


@pytest.fixture
def mirrors(tmp_path: Path) -> Mirrors:
    return Mirrors(tmp_path / "contexts")


@given(rounds=changes.ROUNDS)
@settings(max_examples=40, deadline=None)
def test_whatever_changes_a_mirror_holds_what_a_copy_would(
    rounds: list[tuple[list[changes.Change], bool]],
) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.object(indexing, "GRAIN_NS", GRAIN_NS),
    ):
        root = Path(name) / "source"
        changes.start(root)
        mirrors, memory = Mirrors(Path(name) / "contexts"), Memory(Path(name) / "indexes", root)
        seen: dict[tuple[Path, int, int], bytes] = {}
        for number, (done, waits) in enumerate(rounds):
            for change in done:
                change(root)
            if waits:
                changes.pass_time(root, GRAIN_NS)
            claimed = claim(mirrors, root, memory=memory)
            copied = Path(name) / f"copy{number}"
            context.copy(root, None, copied, Quiet())
            assert held(mirrors.source(claimed)) == held(copied)
            for path in mirrors.source(claimed).rglob("*"):
                if path.is_file() and not path.is_symlink():
                    status, content = path.lstat(), path.read_bytes()
                    key = path, status.st_size, status.st_mtime_ns
                    assert seen.setdefault(key, content) == content
            mirrors.release(claimed)


def test_what_is_the_same_is_not_written_again(source: Path, mirrors: Mirrors) -> None:
    first = mirrors.source(claim(mirrors, source))
    before = {path: path.lstat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    (source / "d/b").write_text("six")
    second = mirrors.source(claim(mirrors, source))
    assert second == first
    after = {path: path.lstat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    assert [path for path in before if before[path] != after[path]] == [first / "context/d/b"]
    assert after[first / "context/d/b"] // 1_000_000_000 == MTIME


def test_a_socket_that_has_come_is_an_empty_file(source: Path, mirrors: Mirrors) -> None:
    mirrors.release(claim(mirrors, source))
    os.mknod(source / "s", stat.S_IFSOCK | 0o644)
    assert (mirrors.source(claim(mirrors, source)) / "context/s").read_bytes() == b""
    with SourceFiles(source, context.manifest(source, None, Quiet()), Quiet()) as files:
        assert list(files.chunks(b"s")) == []


def test_a_mirror_that_others_read_is_not_changed(source: Path, mirrors: Mirrors) -> None:
    one = claim(mirrors, source, "one")
    (source / "a").write_text("two")
    other = claim(mirrors, source, "other")
    assert mirrors.source(one) != mirrors.source(other)
    assert (mirrors.source(one) / "context/a").read_text() == "one"
    assert (mirrors.source(other) / "context/a").read_text() == "two"


def test_builds_of_the_same_content_share_a_mirror(source: Path, mirrors: Mirrors) -> None:
    one, other = claim(mirrors, source, "one"), claim(mirrors, source, "other")
    assert mirrors.source(one) == mirrors.source(other)
    mirrors.release(one)
    assert not mirrors.is_claimed(one)
    assert mirrors.is_claimed(other)
    (source / "a").write_text("two")
    assert mirrors.source(claim(mirrors, source, "third")) != mirrors.source(other)


def test_many_at_once_make_one_mirror(source: Path, mirrors: Mirrors) -> None:
    names: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: names.append(claim(mirrors, source, f"{n}")))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({mirrors.source(name) for name in names}) == 1
    assert all(mirrors.is_claimed(name) for name in names)


def test_what_somebody_died_over_is_never_built_from(
    source: Path, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = claim(mirrors, source)
    mirror = mirrors.source(claimed).parent
    (mirror / "state").unlink()  # as a process leaves it that is killed in the middle of an update
    assert mirrors.source(claim(mirrors, source, "next")).parent != mirror


def test_a_source_that_changes_under_our_hands_leaves_no_mirror(
    source: Path, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors.release(claim(mirrors, source))
    (source / "a").write_text("two")

    def accept_and_change(_: Manifest) -> None:
        (source / "a").write_text("six")

    with pytest.raises(UserError, match="changes while it is read: a"):
        mirrors.claim(
            FolderClaim("source", "b"), MirroredTree(source, None), accept_and_change, Quiet()
        )
    assert list(mirrors.folder.glob("*.*/")) == []
    assert (mirrors.source(claim(mirrors, source)) / "context/a").read_text() == "six"


def test_a_file_system_without_nanoseconds_gets_a_new_folder_each_time(
    source: Path, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagemill.context.mirrors.keeps_times", lambda _: False)
    first = claim(mirrors, source)
    mirrors.release(first)
    (source / "a").write_text("two")
    assert mirrors.source(claim(mirrors, source)) != mirrors.source(first)


def test_this_file_system_keeps_nanoseconds(source: Path, mirrors: Mirrors) -> None:
    assert update.keeps_times(mirrors.source(claim(mirrors, source)))


@pytest.mark.parametrize(
    "name", ["..", "../x", f"{'0' * 64}.{'0' * 32}/../../x", "", "/etc", "a/b"]
)
def test_only_names_of_ours_lead_anywhere(mirrors: Mirrors, name: str) -> None:
    assert not mirrors.is_claimed(name)
    mirrors.release(name)
    with pytest.raises(ValueError, match="not the name of a mirror"):
        mirrors.source(name)


def test_what_nobody_reads_goes_when_there_is_no_room(tmp_path: Path, mirrors: Mirrors) -> None:
    names = []
    for number in range(3):
        root = trees.make(
            tmp_path / f"s{number}", {"Dockerfile": "FROM scratch\n", "a": "x" * 1000}
        )
        source = FolderClaim(f"s{number}", "build")
        names.append(mirrors.claim(source, MirroredTree(root, None), accept, Quiet()))
        os.utime(mirrors.source(names[-1]).parent, (number, number))
    mirrors.release(names[0])
    mirrors.release(names[2])
    mirrors.fit(1500)
    assert [mirrors.source(name).exists() for name in names] == [False, True, True]
    mirrors.fit(0)
    assert [mirrors.source(name).exists() for name in names] == [False, True, False]


def test_claims_of_the_dead_end(source: Path, mirrors: Mirrors) -> None:
    claimed = claim(mirrors, source)
    at = (mirrors.folder / claimed.split("/")[0] / "claims" / claimed.split("/")[1]).stat().st_mtime
    mirrors.fit(1 << 30, claimed_before=at - 1)
    assert mirrors.is_claimed(claimed)
    mirrors.fit(1 << 30, claimed_before=at + 1)
    assert not mirrors.is_claimed(claimed)


def test_the_claim_of_a_build_whose_home_has_gone_is_none(
    source: Path, mirrors: Mirrors, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    dead = FolderClaim("source", "dead", home)
    first = mirrors.source(mirrors.claim(dead, MirroredTree(source, None), accept, Quiet()))
    (source / "a").write_text("two")
    assert mirrors.source(claim(mirrors, source, "second")) != first
    home.rmdir()
    (source / "a").write_text("six")
    assert mirrors.source(claim(mirrors, source, "third")) == first
