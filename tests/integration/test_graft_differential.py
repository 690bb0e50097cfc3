"""What we make without a builder against what BuildKit makes: random bases, suffixes and edits."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import Redis

from graft_trial import Outcome, Trials

SECONDS = 60.0
"""Begin no further case after these."""

CASES, FEWEST = 200, 15
"""Of three edits each."""


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


def test_nothing_differs_and_little_is_refused(trials: Trials) -> None:
    fresh = int(time.time())
    seeds = [*range(FEWEST), *range(fresh, fresh + CASES - FEWEST)]
    end = time.monotonic() + SECONDS

    def outcomes(number: int) -> list[Outcome]:
        if number >= FEWEST and time.monotonic() > end:
            return []
        return list(trials.outcomes(seeds[number]))

    with ThreadPoolExecutor(max_workers=3) as threads:
        found = [one for each in threads.map(outcomes, range(CASES)) for one in each]
    wrong = [one for one in found if one.wrong]
    assert not wrong, wrong[:3]
    assert len(found) > FEWEST
    # Of the seeds that are always the same: of others there may be too few.
    known = [one for one in found if one.seed < FEWEST]
    refused = [one.refused for one in known if one.refused]
    assert len(refused) <= 0.3 * len(known), refused
