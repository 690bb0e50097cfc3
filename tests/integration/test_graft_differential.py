"""What we make without a builder against what BuildKit makes: random bases, suffixes and edits.

Most of BuildKit's answers are recorded (`tests/graft_recording.py`): to make them takes seconds each.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

import graft_odd_cases
from graft_recording import Recording
from graft_trial import Outcome, Trials
from registry_server import registry_server

SECONDS = 20.0
"""Begin no further case with BuildKit itself after these."""

RECORD = "IMAGEMILL_TEST_RECORD_GRAFTS"
"""Variable: how many seeds are to be recorded anew."""


@pytest.fixture(scope="module")
def trials(
    tmp_path_factory: pytest.TempPathFactory,
    docker_cli: str,
    engine: str,
    registry: str,
    redis_url: str,
    busybox: Path,
) -> Iterator[Trials]:
    folder = tmp_path_factory.mktemp("differential")
    with Redis.from_url(redis_url) as redis:
        yield Trials(docker_cli, engine, registry, redis, folder, busybox)


@pytest.fixture(scope="module")
def recording(trials: Trials) -> Recording:
    """The recording that is kept, or a new one."""
    if seeds := int(os.environ.get(RECORD, "0")):
        made = Recording()
        assert trials.shell
        for begin in range(0, seeds, 10):
            with ThreadPoolExecutor(max_workers=3) as threads:
                list(threads.map(lambda seed: trials.record(seed, made), range(begin, begin + 10)))
            made.write()
    return Recording.read()


def test_nothing_differs_from_what_is_recorded_and_little_is_refused(
    trials: Trials, recording: Recording
) -> None:
    with registry_server() as registry:  # no builder takes part: one of this process is quicker
        here = replace(trials, registry=registry.address)
        found = _all(lambda seed: here.outcomes(seed, recording), list(recording.cases))
    assert len(found) >= 300
    assert not (wrong := [one for one in found if one.wrong]), wrong[:3]
    refused = [one.refused for one in found if one.refused]
    assert len(refused) <= 0.3 * len(found), refused


def test_nothing_differs_from_what_buildkit_makes_now(trials: Trials, recording: Recording) -> None:
    fresh, end = int(time.time()), time.monotonic() + SECONDS
    odd = replace(trials, cases=graft_odd_cases.case)
    assert trials.shell
    assert odd.shell

    def outcomes(seed: int) -> Iterator[Outcome]:
        which = odd if seed % 2 else trials
        return which.outcomes(seed) if time.monotonic() < end else iter(())

    # One of those that are recorded is among them: the recording is still what BuildKit makes.
    known = list(recording.cases)[fresh % len(recording.cases)]
    found = [*trials.outcomes(known), *_all(outcomes, range(fresh, fresh + 200))]
    assert not (wrong := [one for one in found if one.wrong]), wrong[:3]
    assert any(one.refused is None for one in found)


def _all(outcomes: Callable[[int], Iterator[Outcome]], seeds: Sequence[int]) -> list[Outcome]:
    with ThreadPoolExecutor(max_workers=3) as threads:
        return [
            one for each in threads.map(lambda seed: list(outcomes(seed)), seeds) for one in each
        ]
