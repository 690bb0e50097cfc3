"""A build's journal, and the lock on its image, on a real Redis."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from celery import Celery
from redis import Redis

from imagemill.client import Client, open_journal
from imagemill.errors import UserError
from imagemill.messages import BuildReport, State
from imagemill.state.journal import MAX_LINE, Journal, connect
from imagemill.state.lock import ImageLock
from imagemill.state.presence import Presence, Worker
from service import until


@pytest.fixture
def app(redis_url: str, key_prefix: str) -> Celery:
    app = Celery("test", broker=redis_url, backend=redis_url, set_as_current=False)
    app.conf.result_backend_transport_options = {"global_keyprefix": key_prefix}
    return app


@pytest.fixture
def journal(app: Celery, redis_url: str, key_prefix: str) -> Journal:
    return open_journal(app, redis_url, key_prefix)


@pytest.fixture
def client(redis_url: str, key_prefix: str) -> Iterator[Client]:
    with Client(redis_url, key_prefix=key_prefix) as client:
        yield client


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url) as connection:
        yield connection


def report(build: str) -> BuildReport:
    return BuildReport(id=build, status="succeeded")


def test_states_lines_and_report_come_in_order(journal: Journal, client: Client) -> None:
    journal.enter("b", State.LOADING, 1.0)
    journal.log("b", ["one", "two"])
    journal.enter("b", State.HASHING, 2.0)
    journal.end("b", report("b"))

    events = list(client.events("b"))
    assert [event.state or event.line or event.report for event in events] == [
        State.LOADING,
        "one",
        "two",
        State.HASHING,
        report("b"),
    ]


def test_a_state_ends_when_the_next_begins(journal: Journal) -> None:
    first = journal.enter("b", State.LOADING, 1.0)
    second = journal.enter("b", State.HASHING, 2.5)
    entered = journal.enter("b", State.HASHING, 3.0)

    assert [(step.state, step.started, step.ended) for step in entered.steps] == [
        (State.LOADING, 1.0, 2.5),
        (State.HASHING, 2.5, None),
    ]
    assert [first.again, second.again, entered.again] == [False, False, True]


def test_celery_shows_the_state_of_a_running_build(journal: Journal, app: Celery) -> None:
    journal.enter("b", State.BUILDING, 1.0, worker="w")

    result = app.AsyncResult("b")
    assert str(result.state) == "BUILDING"
    assert result.info == {"build": "b", "since": 1.0, "worker": "w"}


def test_who_waits_is_woken_by_the_report(journal: Journal, client: Client) -> None:
    journal.enter("b", State.LOADING, 1.0)
    reports: list[BuildReport] = []
    waiting = threading.Thread(target=lambda: reports.append(client.wait("b", timeout=30)))
    waiting.start()
    journal.end("b", report("b"))
    waiting.join(30)

    assert reports == [report("b")]


def test_waiting_ends_with_its_timeout(journal: Journal, client: Client) -> None:
    journal.enter("b", State.LOADING, 1.0)
    with pytest.raises(TimeoutError, match="has not ended"):
        client.wait("b", timeout=0.05)


def test_a_result_without_a_report_does_not_keep_anyone_waiting(
    journal: Journal, app: Celery, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagemill.client._BACKEND_CHECK_SECONDS", 0.0)
    journal.enter("b", State.LOADING, 1.0)
    app.backend.store_result("b", ValueError("lost"), "FAILURE")

    waited = client.wait("b", timeout=30)
    assert waited.status == "failed"
    assert waited.error is not None
    assert waited.error.kind == "ValueError"


def test_nothing_is_known_of_a_build_that_never_was(client: Client) -> None:
    for call in (client.status, client.wait, client.cancel, lambda build: list(client.logs(build))):
        with pytest.raises(UserError, match="Nothing is known"):
            call("never")


def test_long_lines_are_cut(journal: Journal, client: Client) -> None:
    journal.enter("b", State.LOADING, 1.0)
    journal.log("b", ["x" * (MAX_LINE + 1)])
    assert [len(line) for line in client.logs("b")] == [MAX_LINE]


def test_a_build_is_cancelled_once_it_is_asked_for(journal: Journal, client: Client) -> None:
    assert not journal.enter("b", State.LOADING, 1.0).cancelled
    client.cancel("b")
    assert journal.is_cancelled("b")
    assert journal.enter("b", State.HASHING, 2.0).cancelled
    assert client.status("b").cancelling


def test_what_has_ended_is_not_cancelled(journal: Journal, client: Client) -> None:
    journal.enter("b", State.LOADING, 1.0)
    journal.end("b", report("b"))
    client.cancel("b")
    assert not journal.is_cancelled("b")


def test_everything_is_forgotten_after_a_day(
    journal: Journal, redis: Redis, key_prefix: str
) -> None:
    journal.enter("b", State.LOADING, 1.0)
    journal.log("b", ["line"])
    journal.end("b", report("b"))
    client_keys = redis.keys(f"{key_prefix}*")
    assert isinstance(client_keys, list)
    assert client_keys
    assert all(0 < int(str(redis.ttl(key))) <= 24 * 3600 for key in client_keys)


def test_who_comes_late_leaves_the_result_of_a_build_that_has_ended(
    journal: Journal, app: Celery
) -> None:
    """As a worker does that was stopped, and does not know yet that another one took over."""
    journal.enter("b", State.BUILDING, 1.0)
    journal.end("b", report("b"))
    app.backend.store_result("b", report("b").dump(), "SUCCESS")
    journal.enter("b", State.PUSHING, 2.0)
    journal.show("b", State.PUSHING, 3.0, retry={})

    assert app.AsyncResult("b").get(timeout=10) == report("b").dump()


def test_workers_are_there_while_they_say_so(redis: Redis, key_prefix: str) -> None:
    here = Worker("light@here", ("imagemill", "imagemill.steps"), "key")
    presence = Presence(redis, key_prefix)
    for name in ("light@here", "killed@here", "ended@here"):
        presence.announce(replace(here, name=name))
    redis.zincrby(f"{key_prefix}imagemill:workers:times", -60, "killed@here")
    presence.forget("ended@here")

    assert presence.workers() == [here]
    presence.announce(here)
    assert redis.hkeys(f"{key_prefix}imagemill:workers") == [b"light@here"]
    assert all(redis.ttl(key) > 0 for key in redis.scan_iter(f"{key_prefix}imagemill:workers*"))


def lock(redis: Redis, prefix: str, build: str, lease: float = 30) -> ImageLock:
    return ImageLock(redis, prefix, "localhost:5000/x:1", build, lease)


def test_one_build_at_a_time_holds_an_image(redis: Redis, key_prefix: str) -> None:
    assert lock(redis, key_prefix, "a").acquire()
    assert not lock(redis, key_prefix, "b").acquire()
    assert lock(redis, key_prefix, "b").holder() == "a"
    lock(redis, key_prefix, "a").release()
    assert lock(redis, key_prefix, "b").acquire()


def test_a_build_gets_its_own_lock_back(redis: Redis, key_prefix: str) -> None:
    assert lock(redis, key_prefix, "a").acquire()
    assert lock(redis, key_prefix, "a").acquire()


def test_only_the_holder_releases(redis: Redis, key_prefix: str) -> None:
    assert lock(redis, key_prefix, "a").acquire()
    lock(redis, key_prefix, "b").release()
    assert not lock(redis, key_prefix, "b").acquire()


def test_the_lock_of_one_build_alone_is_freed(redis: Redis, key_prefix: str) -> None:
    assert lock(redis, key_prefix, "a").acquire()
    lock(redis, key_prefix, "b").free("c")
    assert lock(redis, key_prefix, "b").holder() == "a"
    lock(redis, key_prefix, "b").free("a")
    assert lock(redis, key_prefix, "b").acquire()


def test_a_lock_that_is_renewed_outlasts_its_lease(redis: Redis, key_prefix: str) -> None:
    held = lock(redis, key_prefix, "a", lease=0.2)
    assert held.acquire()
    with held.renewed(afterwards=60):
        end = time.monotonic() + 0.6
        until(lambda: time.monotonic() > end, "three leases")
        assert not lock(redis, key_prefix, "b").acquire()
    assert int(str(redis.ttl(f"{key_prefix}imagemill:lock:localhost:5000/x:1"))) > 50


def test_a_lock_whose_holder_is_gone_is_free_after_its_lease(redis: Redis, key_prefix: str) -> None:
    assert lock(redis, key_prefix, "a", lease=0.1).acquire()
    until(lock(redis, key_prefix, "b").acquire, "the end of the lease")


def test_a_lock_that_ended_while_redis_was_away_is_taken_again(
    redis: Redis, key_prefix: str
) -> None:
    held = lock(redis, key_prefix, "a", lease=0.2)
    assert held.acquire()
    with held.renewed(afterwards=60):
        redis.delete(f"{key_prefix}imagemill:lock:localhost:5000/x:1")
        until(lambda: lock(redis, key_prefix, "b").holder() == "a", "the lock")
    assert not held.lost


def test_who_loses_the_lock_is_told(redis: Redis, key_prefix: str) -> None:
    held = lock(redis, key_prefix, "a", lease=0.2)
    assert held.acquire()
    with held.renewed(afterwards=60):
        redis.set(f"{key_prefix}imagemill:lock:localhost:5000/x:1", "b")
        until(lambda: held.lost, "the loss")
    assert lock(redis, key_prefix, "b").holder() == "b"
