"""The builds of tenants, on a real Redis."""

from collections.abc import Iterator

import pytest
from redis import Redis

from imagemill.state.quotas import Quotas


@pytest.fixture
def quotas(redis_url: str, key_prefix: str) -> Iterator[Quotas]:
    with Redis.from_url(redis_url) as redis:
        yield Quotas(redis, key_prefix)


def test_builds_stand_in_line_in_the_order_in_which_they_came(quotas: Quotas) -> None:
    assert [quotas.place("a", build) for build in ("one", "two", "three")] == [0, 1, 2]
    assert quotas.place("a", "two") == 1
    quotas.leave("a", "one")
    assert quotas.place("a", "two") == 0


def test_tenants_have_lines_of_their_own(quotas: Quotas) -> None:
    quotas.place("a", "one")
    assert quotas.place("b", "two") == 0


def test_a_build_counts_once_a_day(quotas: Quotas) -> None:
    assert [quotas.today("a", build) for build in ("one", "one", "two")] == [1, 1, 2]
    assert quotas.today("b", "three") == 1
