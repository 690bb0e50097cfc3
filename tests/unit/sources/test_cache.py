"""The cache of fetched sources, as one process sees it; see also
`tests/integration/test_source_cache_processes.py`.
"""

import errno
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import hardship
import trees
from imagemill.errors import (
    BuildCancelled,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    UserError,
)
from imagemill.files import folders
from imagemill.ports import Quiet
from imagemill.sources.cache import SourceCache

KIB = 1024
PLENTY = 1 << 30


def brings(kib: int = 1, content: str = "content") -> Callable[[Path], Path]:
    """Fetches a source with a file of `kib` KiB."""

    def bring(scratch: Path) -> Path:
        trees.make(scratch, {"file": content, "large": b"x" * (kib * KIB)})
        return scratch

    return bring


def unexpected(scratch: Path) -> Path:
    raise AssertionError("it was here already")


def use(cache: SourceCache, key: str, bring: Callable[[Path], Path] = unexpected) -> None:
    with cache.tree(key, bring, Quiet()):
        pass


def kept(cache: SourceCache, *keys: str) -> list[str]:
    """Those of the keys that need not be brought again."""

    class AbsentError(Exception):
        pass

    def absent(scratch: Path) -> Path:
        raise AbsentError

    found = []
    for key in keys:
        try:
            use(cache, key, absent)
            found.append(key)
        except AbsentError:
            pass
    return found


def names(cache: SourceCache) -> set[str]:
    """The folders in the cache."""
    return {path.name for path in cache.folder.iterdir() if path.is_dir()}


@pytest.fixture
def cache(tmp_path: Path) -> SourceCache:
    return SourceCache(tmp_path / "state" / "sources", PLENTY)


def test_a_source_is_brought_once(cache: SourceCache) -> None:
    use(cache, "a", brings(content="a"))
    with cache.tree("a", unexpected, Quiet()) as top:
        assert (top / "file").read_text() == "a"


def test_sources_are_kept_apart_by_their_keys(cache: SourceCache) -> None:
    keys = ["git+https://host/x@1", "git+https://host/x@1#subdirectory=a", "é", "\udcff"]
    for key in keys:
        use(cache, key, brings(content=ascii(key)))
    for key in keys:
        with cache.tree(key, unexpected, Quiet()) as top:
            assert (top / "file").read_text() == ascii(key)


def test_the_top_folder_may_be_within_what_was_brought(cache: SourceCache) -> None:
    def bring(scratch: Path) -> Path:
        assert not scratch.exists()
        trees.make(scratch, {"checkout/é b/file": "content"})
        return scratch / "checkout/é b"

    for attempt in (bring, unexpected):
        with cache.tree("a", attempt, Quiet()) as top:
            assert [path.name for path in top.iterdir()] == ["file"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_nobody_else_can_read_what_is_kept(cache: SourceCache, umask: int) -> None:
    before = os.umask(umask)
    try:
        use(cache, "a", brings())
    finally:
        os.umask(before)

    assert cache.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "error", [UserError("no such ref"), ServiceUnreachable("no answer"), KeyboardInterrupt()]
)
def test_a_source_that_could_not_be_brought_leaves_nothing(
    cache: SourceCache, error: BaseException
) -> None:
    def fail(scratch: Path) -> Path:
        brings()(scratch)
        raise error

    with pytest.raises(type(error)) as raised:
        use(cache, "a", fail)

    assert raised.value is error
    assert names(cache) == set()
    use(cache, "a", brings())


def test_an_error_of_the_user_of_a_source_is_theirs(cache: SourceCache) -> None:
    full = OSError(errno.ENOSPC, "No space left on another device")
    with (
        pytest.raises(OSError, match="another device") as raised,
        cache.tree("a", brings(), Quiet()),
    ):
        raise full

    assert raised.value is full
    assert kept(cache, "a") == ["a"]


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = SourceCache(tmp_path / "sources", 400 * KIB)
    for key in "abc":
        use(cache, key, brings(100))
    use(cache, "a")
    use(cache, "d", brings(100))

    assert kept(cache, *"abcd") == ["a", "c", "d"]


def test_the_order_of_use_is_none_of_the_file_systems_clock(tmp_path: Path) -> None:
    cache = SourceCache(tmp_path / "sources", 400 * KIB)
    for key in "abc":
        use(cache, key, brings(100))
    use(cache, "a")
    for path in cache.folder.rglob("*"):
        os.utime(path, (1, 1))
    use(cache, "d", brings(100))

    assert kept(cache, *"abcd") == ["a", "c", "d"]


def test_what_takes_the_bound_to_the_byte_is_kept(cache: SourceCache) -> None:
    for key in "ab":
        use(cache, key, brings(100))
    exact = sum(folders.size(path / "tree", Quiet()) for path in cache.folder.glob("?" * 64))
    use(SourceCache(cache.folder, exact), "a")
    assert kept(cache, *"ab") == ["a", "b"]
    use(SourceCache(cache.folder, exact - 1), "a")
    assert kept(cache, *"ab") == ["a"]


def test_a_source_too_large_to_be_kept_is_used_and_drives_no_other_out(tmp_path: Path) -> None:
    cache = SourceCache(tmp_path / "sources", 400 * KIB)
    use(cache, "a", brings(100))
    with cache.tree("large", brings(500), Quiet()) as top:
        assert (top / "large").stat().st_size == 500 * KIB
        use(cache, "large")
        assert top.exists()

    assert kept(cache, "a", "large") == ["a"]
    assert len(names(cache)) == 1


def test_nothing_is_kept_where_the_bound_is_zero(tmp_path: Path) -> None:
    cache = SourceCache(tmp_path / "sources", 0)
    with cache.tree("a", brings(), Quiet()) as top:
        use(cache, "a")
        assert (top / "file").read_text() == "content"

    assert names(cache) == set()


def test_what_is_in_use_stays_until_it_is_not(tmp_path: Path) -> None:
    cache = SourceCache(tmp_path / "sources", 250 * KIB)
    with cache.tree("a", brings(100), Quiet()) as a:
        with cache.tree("b", brings(100), Quiet()) as b, cache.tree("c", brings(100), Quiet()) as c:
            assert all((top / "large").stat().st_size == 100 * KIB for top in (a, b, c))
        assert kept(cache, *"abc") == ["a", "b"]
        use(cache, "d", brings(100))
        assert kept(cache, *"abd") == ["a", "d"]
        assert (a / "file").exists()


def test_a_smaller_bound_holds_from_the_next_use_on(cache: SourceCache) -> None:
    for key in "abc":
        use(cache, key, brings(100))
    use(SourceCache(cache.folder, 150 * KIB), "c")

    assert kept(cache, *"abc") == ["c"]


def test_what_is_left_of_a_dead_process_is_removed_and_the_unknown_let_alone(
    cache: SourceCache,
) -> None:
    use(cache, "a", brings())
    (entry,) = cache.folder.glob("?" * 64)
    for name in (f"{entry.name}.{uuid.uuid4().hex}", f"removed.{uuid.uuid4().hex}"):
        shutil.copytree(entry, cache.folder / name)
    (cache.folder / f"{'0' * 64}.{uuid.uuid4().hex}").mkdir()
    for name in ("lost+found", "a.b"):
        shutil.copytree(entry, cache.folder / name)
    (cache.folder / ("1" * 64)).mkdir()  # power was cut
    (cache.folder / ("1" * 64) / "entry").write_bytes(bytes(50))
    use(cache, "a")

    assert names(cache) == {entry.name, "lost+found", "a.b"}


def test_a_leftover_that_cannot_be_removed_yet_does_not_hinder(cache: SourceCache) -> None:
    leftover = cache.folder / f"removed.{uuid.uuid4().hex}"
    trees.make(leftover, {"tree/file": "1", "unknown": "2"})
    use(cache, "a", brings())
    assert leftover.exists() is False
    (again,) = cache.folder.glob("removed.*")
    (again / "unknown").unlink()
    use(cache, "a")

    assert not list(cache.folder.glob("removed.*"))


def test_a_source_too_deep_for_a_build_is_refused_and_removed(cache: SourceCache) -> None:
    def bring(scratch: Path) -> Path:
        (scratch / "/".join("a" * 300)).mkdir(parents=True)
        return scratch

    with pytest.raises(UserError, match="nested deeper"):
        use(cache, "a", bring)
    assert names(cache) == set()


def test_what_was_made_before_the_machine_started_anew_is_not_used(
    cache: SourceCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(cache, "a", brings(content="before"))
    (tmp_path / "boot_id").write_text("another")
    monkeypatch.setattr("imagemill.sources.cache._BOOT", tmp_path / "boot_id")
    use(cache, "a", brings(content="after"))

    with cache.tree("a", unexpected, Quiet()) as top:
        assert (top / "file").read_text() == "after"


def full(cache: SourceCache, error: Callable[[], BaseException]) -> Callable[[Path], Path]:
    """Brings a source onto a disk that has no room while another one is kept."""

    def bring(scratch: Path) -> Path:
        assert not scratch.exists()
        brings(10)(scratch)
        if len(list(cache.folder.glob("?" * 64))) > 1:
            raise error()
        return scratch

    return bring


def no_space() -> BaseException:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def translated() -> BaseException:
    error = OperatorError("There is no room left")
    error.__cause__ = no_space()
    return error


@pytest.mark.parametrize("error", [no_space, translated])
def test_a_full_disk_drives_out_what_nobody_uses(
    cache: SourceCache, error: Callable[[], BaseException]
) -> None:
    use(cache, "a", brings())
    with cache.tree("b", brings(), Quiet()) as held:
        use(cache, "c", full(cache, error))
        assert (held / "file").exists()

    assert kept(cache, *"abc") == ["b", "c"]


def test_a_full_disk_with_nothing_to_drive_out_is_the_operators(cache: SourceCache) -> None:
    attempts: list[Path] = []

    def bring(scratch: Path) -> Path:
        attempts.append(scratch)
        raise no_space()

    with pytest.raises(OperatorError, match=f"no room left in {cache.folder}"):
        use(cache, "a", bring)
    assert len(attempts) == 1
    use(cache, "b", brings())
    with pytest.raises(OperatorError, match="no room left"):
        use(cache, "a", bring)
    assert len(attempts) == 3


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    with hardship.small_disk(tmp_path / "disk") as disk:
        cache = SourceCache(disk / "sources", PLENTY)
        use(cache, "a", brings(150))
        use(cache, "b", brings(151))
        assert kept(cache, "b") == ["b"]
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"x" * KIB):
                pass
        use(cache, "c", brings(100))
        with pytest.raises(OperatorError, match="no room left"):
            use(cache, "d", brings(500))


def test_other_errors_drive_nothing_out(cache: SourceCache) -> None:
    for key in "ab":
        use(cache, key, brings())
    with pytest.raises(PermissionDenied):
        use(cache, "c", full(cache, lambda: PermissionDenied("no")))

    assert kept(cache, *"abc") == ["a", "b"]


def test_a_folder_of_another_user_is_named(tmp_path: Path) -> None:
    with hardship.public_folder() as folder:
        folder.chmod(0o500)
        cache = SourceCache(folder / "sources", PLENTY)
        with (
            hardship.as_nobody(),
            pytest.raises(PermissionDenied, match="may not keep fetched sources in") as raised,
        ):
            use(cache, "a", brings())

    assert "IMAGEMILL_STATE_DIR" in raised.value.hint


def test_a_file_where_the_folder_should_be_is_the_operators(tmp_path: Path) -> None:
    (tmp_path / "sources").write_text("")
    with pytest.raises(OperatorError, match="is not a folder"):
        use(SourceCache(tmp_path / "sources", PLENTY), "a", brings())


class Once(Quiet):
    """Tells when it is asked whether to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def check(self) -> None:
        self.asked.set()


class Cancelled(Once):
    def check(self) -> None:
        super().check()
        raise BuildCancelled("The build was cancelled")


@contextmanager
def being_brought(cache: SourceCache, key: str, fail: bool = False) -> Iterator[None]:
    """Another thread is fetching the source for as long as the block lasts."""
    begun, end = threading.Event(), threading.Event()

    def bring(scratch: Path) -> Path:
        begun.set()
        assert end.wait(60)
        if fail:
            raise UserError("no such ref")
        return brings()(scratch)

    with ThreadPoolExecutor() as threads:
        other = threads.submit(use, cache, key, bring)
        try:
            assert begun.wait(60)
            yield
        finally:
            end.set()
        assert isinstance(other.exception(60), UserError) == fail


def test_who_waits_for_another_says_so_and_can_be_cancelled(cache: SourceCache) -> None:
    progress = Cancelled()
    with (
        being_brought(cache, "a"),
        pytest.raises(BuildCancelled),
        cache.tree("a", unexpected, progress),
    ):
        pass

    assert [line for line in progress.lines if "waiting" in line] == progress.lines != []
    assert kept(cache, "a") == ["a"]


@pytest.mark.parametrize("fail", [False, True])
def test_who_waits_uses_what_another_brought_or_takes_over(cache: SourceCache, fail: bool) -> None:
    progress = Once()

    def wait() -> str:
        with cache.tree("a", brings(content="mine") if fail else unexpected, progress) as top:
            return (top / "file").read_text()

    with ThreadPoolExecutor() as threads:
        with being_brought(cache, "a", fail):
            waiting = threads.submit(wait)
            assert progress.asked.wait(60)
        assert waiting.result(60) == ("mine" if fail else "content")


def test_a_source_being_brought_is_not_taken_for_a_leftover_and_hinders_no_other(
    cache: SourceCache,
) -> None:
    with being_brought(cache, "a"):
        use(cache, "b", brings())
        use(cache, "b")

    assert kept(cache, *"ab") == ["a", "b"]


def test_a_cancelled_build_keeps_no_lock(tmp_path: Path) -> None:
    cache = SourceCache(tmp_path / "sources", 0)
    for error in (BuildCancelled("The build was cancelled"), KeyboardInterrupt()):
        with pytest.raises(type(error)), cache.tree("a", brings(), Quiet()):
            raise error
        assert names(cache) == set()


SIZES = {"a": 20, "b": 60, "c": 100, "d": 150, "e": 400}
MOST = 300


class Uses(RuleBasedStateMachine):
    """Sources of different sizes, used one after the other and at the same time, against what may
    be there of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state = ExitStack()
        self.cache = SourceCache(
            Path(self.state.enter_context(tempfile.TemporaryDirectory())), MOST * KIB
        )
        self.held: list[tuple[str, Path, ExitStack]] = []
        """Key and top folder of what is in use, and what ends that."""

    def bring(self, key: str) -> Callable[[Path], Path]:
        return brings(SIZES[key], key)

    @rule(key=st.sampled_from(sorted(SIZES)))
    def enter(self, key: str) -> None:
        use = ExitStack()
        bring = unexpected if key in (held for held, *_ in self.held) else self.bring(key)
        top = use.enter_context(self.cache.tree(key, bring, Quiet()))
        self.held.append((key, top, use))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        *_, use = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        use.close()

    @rule(key=st.sampled_from(sorted(SIZES)))
    def fail(self, key: str) -> None:
        def fail(scratch: Path) -> Path:
            self.bring(key)(scratch)
            raise UserError("no such ref")

        try:
            use(self.cache, key, fail)
        except UserError:
            assert key not in (held for held, *_ in self.held)

    @rule(name=st.sampled_from(["removed", "0" * 64]))
    def die(self, name: str) -> None:
        trees.make(self.cache.folder / f"{name}.{uuid.uuid4().hex}", {"tree/file": "half"})

    @invariant()
    def what_is_held_is_whole(self) -> None:
        for key, top, _ in self.held:
            assert (top / "file").read_text() == key
            assert (top / "large").stat().st_size == SIZES[key] * KIB

    @invariant()
    def what_is_not_held_keeps_to_the_bound(self) -> None:
        entries = list(self.cache.folder.glob("?" * 64))
        sizes = [folders.size(path / "tree", Quiet()) for path in entries]
        held = {top.parent.name for _, top, _ in self.held}
        free = [size for path, size in zip(entries, sizes, strict=True) if path.name not in held]
        assert not free or sum(size for size in sizes if size <= MOST * KIB) <= MOST * KIB
        assert all(size <= MOST * KIB for size in free)
        assert held <= {path.name for path in entries}

    def teardown(self) -> None:
        for *_, use in self.held:
            use.close()
        self.state.close()


TestUses = Uses.TestCase
TestUses.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
