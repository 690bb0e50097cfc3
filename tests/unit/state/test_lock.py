"""Who has the lock on an image, and on what comes before the code."""

import fakeredis
import pytest

from imagemill.state.lock import DependencyLock, ImageLock

IMAGE = "registry.example/app:1"


@pytest.fixture
def redis() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis()


def lock(redis: fakeredis.FakeRedis, build: str, lease: float = 60) -> ImageLock:
    return ImageLock(redis, "p:", IMAGE, build, lease)


def test_one_build_has_the_lock_in_whatever_process_it_runs(redis: fakeredis.FakeRedis) -> None:
    first = lock(redis, "one")
    assert first.holder() == ""
    assert first.acquire()
    assert not lock(redis, "two").acquire()
    assert lock(redis, "two").holder() == "one"
    assert lock(redis, "one").acquire()


def test_only_who_has_the_lock_gives_it_back(redis: fakeredis.FakeRedis) -> None:
    assert lock(redis, "one").acquire()
    assert not lock(redis, "two").release()
    assert lock(redis, "one").release()
    assert lock(redis, "two").acquire()


def test_the_lock_of_another_build_is_freed_by_its_name_alone(redis: fakeredis.FakeRedis) -> None:
    assert lock(redis, "one").acquire()
    lock(redis, "two").free("three")
    assert lock(redis, "two").holder() == "one"
    lock(redis, "two").free("one")
    assert lock(redis, "two").acquire()


def test_after_a_block_the_lock_is_left_to_the_builds_next_step(redis: fakeredis.FakeRedis) -> None:
    held = lock(redis, "one")
    assert held.acquire()
    with held.renewed(afterwards=600):
        assert not held.lost
    left = redis.ttl(f"p:imagemill:lock:{IMAGE}")
    assert isinstance(left, int)
    assert 60 < left <= 600
    assert held.holder() == "one"


def test_a_lock_that_another_build_took_over_is_not_kept_from_it(
    redis: fakeredis.FakeRedis,
) -> None:
    held = lock(redis, "one")
    assert held.acquire()
    held.free("one")
    assert lock(redis, "two").acquire()
    held.keep(600)
    assert held.holder() == "two"


def test_what_a_build_has_made_is_its_own_while_it_is_read(redis: fakeredis.FakeRedis) -> None:
    maker = DependencyLock(redis, "p:", "key", "one", 60)
    assert maker.acquire()
    assert not maker.is_read
    maker.hand_over(30)
    other = DependencyLock(redis, "p:", "key", "two", 60)
    assert other.is_read
    assert other.holder() == "one"
    assert not other.acquire()
    reader = DependencyLock.of_reader(redis, "p:", "key", "one", 60)
    assert reader.acquire()
    assert reader.release()
    assert other.acquire()


def test_who_does_not_have_the_lock_hands_nothing_over(redis: fakeredis.FakeRedis) -> None:
    assert DependencyLock(redis, "p:", "key", "one", 60).acquire()
    other = DependencyLock(redis, "p:", "key", "two", 60)
    other.hand_over(30)
    assert not other.is_read
    assert other.holder() == "one"
