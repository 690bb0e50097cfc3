"""The simulation behind docs/scale.md, against what can be said without it."""

import math
import random
import statistics

import pytest

from benchmarks.scale import Costs, Load, _waits, simulate

COSTS = Costs(commands=100, redis_ms=4, light_ms=30, kept_bytes=6000)


def test_one_server_takes_one_after_the_other() -> None:
    assert _waits([0, 1, 2], [5, 5, 5], servers=1) == [0, 4, 8]
    assert _waits([0, 1, 2], [5, 5, 5], servers=2) == [0, 0, 3]


def test_waits_at_random_are_what_queueing_theory_says() -> None:
    """Erlang's formula for one server: the mean wait is load / (1 - load) of the mean service."""

    chance = random.Random(1)
    at, arrivals = 0.0, []
    for _ in range(100_000):
        at += chance.expovariate(0.5)
        arrivals.append(at)
    waits = _waits(arrivals, [chance.expovariate(1) for _ in arrivals], servers=1)
    assert statistics.mean(waits) == pytest.approx(1.0, rel=0.1)


def test_a_day_is_its_rate_times_its_costs() -> None:
    day = simulate(Load(builds=86_400, built=0.1, light=8, builders=100, peak=2), COSTS)
    assert day.redis_commands == 200
    assert math.isclose(day.redis_cpu, 0.008)
    assert day.redis_bytes == 86_400 * 6000


def test_fewer_builders_wait_longer() -> None:
    few, many = (
        simulate(Load(builds=20_000, built=0.2, light=4, builders=count), COSTS)
        for count in (20, 60)
    )
    assert few.build_p99 > many.build_p99
