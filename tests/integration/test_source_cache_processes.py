"""The cache of fetched sources, as many processes share it, some of which are killed."""

import fcntl
import hashlib
import os
import random
import re
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from imagemill.files import folders
from imagemill.ports import Quiet
from imagemill.sources.cache import SourceCache
from processes import forking

KIB = 1024
PLENTY = 1 << 30
PATIENCE = 60.0
"""Seconds after which a process that does not answer has failed."""


@dataclass(frozen=True)
class Sources:
    """Makes sources by their keys, a folder of six files each, and notes how often."""

    notes: Path

    def bring(
        self, key: str, half_way: Callable[[], object] = lambda: None
    ) -> Callable[[Path], Path]:
        """Makes the source `key`; fails if somebody else is at it as well."""

        def bring(scratch: Path) -> Path:
            with (self.notes / key).open("ab", buffering=0) as note:
                fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
                note.write(b".")
                (scratch / "top").mkdir(parents=True)
                for name, content in files(key):
                    (scratch / "top" / name).write_bytes(content)
                    if name == "3":
                        half_way()
            return scratch / "top"

        return bring

    def count(self, key: str) -> int:
        """How often the source was made."""
        return (self.notes / key).stat().st_size


def files(key: str) -> Iterable[tuple[str, bytes]]:
    return [
        (str(number), hashlib.sha256(f"{key}{number}".encode()).digest() * 500)
        for number in range(6)
    ]


def whole(top: Path, key: str) -> bool:
    return sorted((path.name, path.read_bytes()) for path in top.iterdir()) == files(key)


def in_order(cache: SourceCache, most: int) -> bool:
    """Whether the cache holds nothing but whole entries, within the bound."""
    entries = [path for path in cache.folder.iterdir() if path.name != "lock"]
    assert all(re.fullmatch(r"[0-9a-f]{64}", path.name) for path in entries), entries
    return sum(folders.size(path / "tree", Quiet()) for path in entries) <= most


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    (tmp_path / "notes").mkdir()
    return Sources(tmp_path / "notes")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sources"


def started(function: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """A process that runs the function, and a connection to it."""
    ours, its = forking().Pipe()
    process = forking().Process(target=function, args=(*arguments, its), daemon=True)
    process.start()
    its.close()
    return process, ours


def told(connection: Connection) -> Any:
    assert connection.poll(PATIENCE)
    return connection.recv()


def ended(process: BaseProcess) -> int | None:
    process.join(PATIENCE)
    return process.exitcode


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def use_many(
    cache: SourceCache, sources: Sources, keys: list[str], seed: int, fatal: int, _: Connection
) -> None:
    """Use the sources in two threads, two at a time and in any order; be killed in the middle of
    the fetch `fatal`.
    """
    fetches = 0

    def count() -> None:
        nonlocal fetches
        fetches += 1
        if fetches == fatal:
            die()

    def use(order: random.Random) -> None:
        for _ in range(8):
            one, other = order.sample(keys, 2)
            with cache.tree(one, sources.bring(one, count), Quiet()) as top:
                assert whole(top, one)
                with cache.tree(other, sources.bring(other, count), Quiet()) as second:
                    assert whole(second, other)
                assert whole(top, one)

    with ThreadPoolExecutor() as threads:
        list(threads.map(use, [random.Random(2 * seed), random.Random(2 * seed + 1)]))


def test_what_many_processes_use_is_whole_though_room_is_short_and_some_are_killed(
    folder: Path, sources: Sources
) -> None:
    most = 600 * KIB  # six of the sources
    cache, keys = SourceCache(folder, most), [f"key-{number}" for number in range(20)]
    fatal = [0, 3, 0, 5, 0, 0, 7, 0]
    processes = [
        started(use_many, cache, sources, keys, seed, at)[0] for seed, at in enumerate(fatal)
    ]

    assert [ended(process) for process in processes] == [
        -signal.SIGKILL if at else 0 for at in fatal
    ]
    with cache.tree(keys[0], sources.bring(keys[0]), Quiet()):
        pass
    assert in_order(cache, most)


def test_many_processes_fetch_each_source_once_while_there_is_room(
    folder: Path, sources: Sources
) -> None:
    cache, keys = SourceCache(folder, PLENTY), [f"key-{number}" for number in range(5)]
    processes = [started(use_many, cache, sources, keys, seed, 0)[0] for seed in range(8)]

    assert [ended(process) for process in processes] == [0] * 8
    assert [sources.count(key) for key in keys] == [1] * 5


def fetch_half(cache: SourceCache, sources: Sources, key: str, parent: Connection) -> None:
    """Say when half of the source is there, and then wait for ever."""

    def half_way() -> None:
        parent.send("half")
        parent.recv()

    with cache.tree(key, sources.bring(key, half_way), Quiet()):
        pass


class Telling(Quiet):
    """Tells somebody that it is waited."""

    def __init__(self, parent: Connection) -> None:
        super().__init__()
        self.parent = parent

    def log(self, line: str) -> None:
        self.parent.send(line)


def fetch(cache: SourceCache, sources: Sources, key: str, parent: Connection) -> None:
    with cache.tree(key, sources.bring(key), Telling(parent)) as top:
        parent.send(whole(top, key))


def test_who_waits_for_a_process_that_is_killed_takes_over(folder: Path, sources: Sources) -> None:
    cache = SourceCache(folder, PLENTY)
    fetching, half = started(fetch_half, cache, sources, "key")
    assert told(half) == "half"
    waiting, other = started(fetch, cache, sources, "key")
    assert "waiting" in told(other)
    fetching.kill()

    assert told(other) is True
    assert ended(waiting) == 0
    assert sources.count("key") == 2
    assert in_order(cache, PLENTY)


def test_what_a_killed_process_had_half_fetched_is_fetched_anew(
    folder: Path, sources: Sources
) -> None:
    cache = SourceCache(folder, PLENTY)
    fetching, half = started(fetch_half, cache, sources, "key")
    assert told(half) == "half"
    fetching.kill()
    fetching.join()

    with cache.tree("key", sources.bring("key"), Quiet()) as top:
        assert whole(top, "key")
    assert in_order(cache, PLENTY)


def hold(cache: SourceCache, sources: Sources, key: str, parent: Connection) -> None:
    """Use a source until told to end; a child that is forked meanwhile ends its use first."""
    with cache.tree(key, sources.bring(key), Quiet()) as top:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            parent.send(top)
            parent.recv()
            parent.send(whole(top, key))
    if not child:
        os._exit(0)


def test_what_another_process_uses_is_not_removed(folder: Path, sources: Sources) -> None:
    cache = SourceCache(folder, 0)
    process, holder = started(hold, cache, sources, "held")
    top = told(holder)
    for key in "abc":
        with cache.tree(key, sources.bring(key), Quiet()):
            pass
    assert whole(top, "held")
    holder.send("end")

    assert told(holder) is True
    assert ended(process) == 0
    assert in_order(cache, 0)


def test_what_a_killed_process_used_can_be_removed(folder: Path, sources: Sources) -> None:
    cache = SourceCache(folder, 0)
    process, holder = started(hold, cache, sources, "held")
    top = told(holder)
    process.kill()
    process.join()
    with cache.tree("a", sources.bring("a"), Quiet()):
        assert not top.exists()
    assert in_order(cache, 0)


def leave_a_child(cache: SourceCache, sources: Sources, key: str, parent: Connection) -> None:
    """Use a source and fork a child meanwhile, which lives on."""
    with cache.tree(key, sources.bring(key), Quiet()):
        if not os.fork():
            parent.recv()
            os._exit(0)
    parent.send("left")


def test_a_child_that_was_forked_meanwhile_does_not_prolong_the_use(
    folder: Path, sources: Sources
) -> None:
    cache = SourceCache(folder, 0)
    process, child = started(leave_a_child, cache, sources, "key")
    assert told(child) == "left"
    assert in_order(cache, 0)
    child.send("end")
    assert ended(process) == 0


class Fatal(Quiet):
    """Kills the process in the middle of removing an entry."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def check(self) -> None:
        if any(len(list(path.iterdir())) < 6 for path in self.folder.glob("removed.*/tree/*")):
            die()


def die_removing(folder: Path, sources: Sources, _: Connection) -> None:
    with SourceCache(folder, PLENTY).tree("a", sources.bring("a"), Quiet()):
        pass
    with SourceCache(folder, 150 * KIB).tree("b", sources.bring("b"), Fatal(folder)):
        pass


def test_what_a_killed_process_had_half_removed_is_not_found(
    folder: Path, sources: Sources
) -> None:
    process, _ = started(die_removing, folder, sources)
    assert ended(process) == -signal.SIGKILL
    assert list(folder.glob("removed.*/tree/*/*"))
    cache = SourceCache(folder, PLENTY)
    for key in "ab":
        with cache.tree(key, sources.bring(key), Quiet()) as top:
            assert whole(top, key)

    assert [sources.count(key) for key in "ab"] == [2, 1]
    assert in_order(cache, PLENTY)
