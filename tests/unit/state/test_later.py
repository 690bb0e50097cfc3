"""Messages that lie in Redis until their time has come."""

import fakeredis
import pytest

from imagemill.state import later
from imagemill.state.journal import Journal
from imagemill.state.later import Later


@pytest.fixture
def kept() -> Later:
    return Later(fakeredis.FakeRedis(), "p:")


def test_what_is_due_is_taken_by_one_and_what_is_not_waits(kept: Later) -> None:
    kept.add("now", "first", 0)
    kept.add("then", "second", 600)
    assert kept.take() == [("now", "first")]
    assert kept.take() == []


def test_who_waits_is_woken_by_any_of_what_it_awaits(kept: Later) -> None:
    kept.add("one", "1", 600, "image", "one-is-cancelled")
    kept.add("two", "2", 600, "image")
    kept.add("other", "3", 600, "another image")
    kept.wake("one-is-cancelled")
    assert kept.take() == [("one", "1")]
    kept.sent("one")
    kept.wake("image")
    assert kept.take() == [("two", "2")]


def test_a_build_that_is_to_stop_waits_no_longer() -> None:
    redis = fakeredis.FakeRedis()
    kept = Later(redis, "p:")
    kept.add("one", "1", 600, "one-build", "image")
    kept.add("two", "2", 600, "another-build", "image")
    Journal(redis, "p:", str.encode).ask_to_cancel("one-build")
    assert kept.take() == [("one", "1")]


def test_what_was_taken_and_not_sent_is_handed_out_again(
    kept: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later, "SENDING_SECONDS", 0)
    kept.add("lost", "text", 0)
    assert kept.take() == kept.take() == [("lost", "text")]
    kept.sent("lost")
    assert kept.take() == []


def test_nothing_is_kept_without_an_end() -> None:
    redis = fakeredis.FakeRedis()
    Later(redis, "p:").add("a", "text", 0, "image")
    assert all(redis.ttl(key) > 0 for key in redis.scan_iter())


def test_what_is_no_text_is_handed_out_and_forgotten() -> None:
    redis = fakeredis.FakeRedis()
    redis.zadd("p:imagemill:later", {b"\xff": 0})
    redis.hset("p:imagemill:later:messages", b"\xff", b"\xfe")
    kept = Later(redis, "p:")
    [(message, text)] = kept.take()
    assert text == "\ufffd"
    kept.sent(message)
    assert redis.keys() == []
