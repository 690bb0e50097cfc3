"""A step that does not look at the clock ends, in whatever pool."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.watchdog import OutOfTime, Watchdog


def run_for_ever(watchdog: Watchdog) -> None:
    with watchdog.watching(0.05):
        while True:
            try:
                while True:
                    pass
            except Exception:  # noqa: BLE001 (as a library may do)
                continue


def test_what_runs_for_ever_ends_in_a_thread_and_only_there() -> None:
    watchdog, other = Watchdog(), threading.Event()
    with ThreadPoolExecutor(2) as pool, watchdog.watching(60):
        waits = pool.submit(other.wait, 30)
        with pytest.raises(OutOfTime):
            pool.submit(run_for_ever, watchdog).result(30)
        other.set()
        assert waits.result(30)
        # The thread is as good as before.
        assert pool.submit(sum, range(10)).result(30) == 45


def test_what_ends_in_time_is_left_alone() -> None:
    watchdog = Watchdog()
    for _ in range(1000):
        with watchdog.watching(60):
            pass
    assert sum(range(1_000_000)) == 499999500000


def test_what_comes_too_late_hits_nobody() -> None:
    watchdog, late = Watchdog(), 0
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            with watchdog.watching(0):
                sum(range(1000))
        except OutOfTime:
            late += 1
    assert sum(range(1_000_000)) == 499999500000
    assert late


def test_an_error_that_it_became_is_told() -> None:
    def run() -> None:
        try:
            while True:
                pass
        except BaseException as error:
            raise ValueError("made of it") from error

    with pytest.raises(ValueError, match="made of it"), Watchdog().watching(0):
        run()
