"""Which step of a build is whose; fakeredis serves, since no server is needed for the scripts' logic."""

from typing import Any

import fakeredis
import pytest

from imagemill.messages import Build, BuildRequest, State
from imagemill.signing import Keys
from imagemill.state.journal import Journal
from imagemill.state.records import Claim, Records
from imagemill.state.seal import BrokenSealError, Seal

ID = "0e7ffb2a"


@pytest.fixture
def redis() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis()


@pytest.fixture
def records(redis: fakeredis.FakeRedis) -> Records:
    found = of(redis)
    assert found.begin(build(), "load_config", "light", {"link": ["other"]})
    return found


def of(redis: fakeredis.FakeRedis, key: str = "1", grace: float = 60) -> Records:
    return Records(Journal(redis, "p:", str.encode), grace, Seal(Keys.of(key * 32)))


def build(**known: Any) -> Build:
    return Build(id=ID, request=BuildRequest(source="/src"), started=1.0, **known)


def claim(records: Records, turn: int, step: str, holder: str = "worker") -> Claim | None:
    return records.claim(ID, turn, step, holder, State.CHECKING)


def taken(records: Records, turn: int, step: str, holder: str = "worker") -> Claim:
    found = claim(records, turn, step, holder)
    assert found is not None
    return found


def test_a_build_begins_once_and_its_first_message_is_sent_again_until_it_has_come(
    records: Records,
) -> None:
    assert records.begin(build(), "load_config", "light", {}) is not None
    assert records.open(ID)
    assert not records.over(ID)
    assert records.canvas(ID) == {"link": ["other"]}
    taken(records, 1, "load_config")
    assert records.begin(build(), "load_config", "light", {}) is None


def test_a_step_is_taken_by_one_and_only_in_its_turn(records: Records) -> None:
    assert claim(records, 2, "load_config") is None
    assert claim(records, 1, "hash_source") is None
    found = taken(records, 1, "load_config")
    assert found.build == build()
    assert not found.entered.again
    assert claim(records, 1, "load_config", "another") is None


def test_what_a_step_has_learned_is_known_to_the_next(records: Records) -> None:
    first = taken(records, 1, "load_config")
    due = records.advance(first, build(source_hash="abc"), "check_registry", "light", tries=2)
    assert due is not None
    assert (due.turn, due.step, due.lost) == (2, "check_registry", False)
    assert records.advance(first, build(), "build", "light") is None
    second = taken(records, 2, "check_registry")
    assert second.build.source_hash == "abc"
    assert second.tries == 2
    assert not records.renew(first)
    assert records.renew(second)


def test_the_step_of_a_worker_that_died_goes_to_another(records: Records) -> None:
    taken(records, 1, "load_config")
    assert not records.release(ID, 1, "another", died=True)
    assert records.release(ID, 1, "worker", died=True)
    again = taken(records, 1, "load_config", "another")
    assert again.deaths == 1


def test_a_step_that_is_given_back_counts_no_death(records: Records) -> None:
    taken(records, 1, "load_config")
    assert records.release(ID, 1, "worker", died=False)
    assert taken(records, 1, "load_config", "another").deaths == 0


def test_a_build_that_is_over_gives_no_step(records: Records) -> None:
    records.finish(ID)
    assert claim(records, 1, "load_config") is None
    assert not records.open(ID)
    assert records.over(ID)
    assert records.ended(ID)
    assert records.canvas(ID) == {}
    assert records.begin(build(), "load_config", "light", {}) is None


def test_of_a_build_that_nobody_knows_nothing_is_due(records: Records) -> None:
    assert records.over("other")
    assert not records.ended("other")
    assert not records.open("other")


def test_a_record_with_anothers_seal_is_not_believed(
    redis: fakeredis.FakeRedis, records: Records
) -> None:
    with pytest.raises(BrokenSealError):
        claim(of(redis, "2"), 1, "load_config")


def test_what_is_overdue_is_given_to_one(redis: fakeredis.FakeRedis) -> None:
    records = of(redis, grace=-1)
    records.begin(build(), "load_config", "light", {})
    overdue = of(redis).overdue()
    assert [(due.build, due.turn, due.step, due.queue) for due in overdue] == [
        (ID, 1, "load_config", "light")
    ]
    assert of(redis).overdue() == []
