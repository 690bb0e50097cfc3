"""Whatever lies in its queues, a worker goes on."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from chaos.messages import NOTHING_TO_BUILD, nested, send
from imagemill.errors import UserError
from imagemill.messages import BuildRequest
from imagemill.state.dead_letters import DeadLetters
from service import Service, service, until


@pytest.fixture
def running(tmp_path: Path, redis_url: str, key_prefix: str) -> Iterator[Service]:
    config = tmp_path / "noop.yaml"
    config.write_text("builder: {type: noop}\n")
    with service(
        redis_url, redis_url, key_prefix, tmp_path, IMAGEMILL_CONFIG=str(config)
    ) as workers:
        workers.start()
        yield workers


def dead(running: Service) -> DeadLetters:
    return DeadLetters(running.journal.redis, running.prefix)


def lives(running: Service) -> bool:
    """Whether a build that comes last is done."""
    build = running.client.submit(BuildRequest(**NOTHING_TO_BUILD))
    return running.client.wait(build, timeout=60).status == "succeeded"


def test_who_asks_for_what_cannot_be_read_is_told(running: Service) -> None:
    request = {**NOTHING_TO_BUILD, "labels": nested(500)}
    result = running.client.app.send_task(
        "imagemill.build_image", kwargs={"request": request}, queue="imagemill"
    )
    with pytest.raises(Exception, match="nested"):
        result.get(timeout=30)

    assert lives(running)
    (letter,) = dead(running).all()
    assert (letter.queue, letter.message["headers"]["id"]) == ("imagemill", result.id)


def test_a_dead_letter_is_looked_at_sent_again_and_dropped(running: Service) -> None:
    client = running.client
    sent = client.app.send_task(
        "imagemill.build_image", kwargs={"request": {"a": nested(70)}}, queue="imagemill"
    )
    until(lambda: bool(client.dead_letters()), "the dead letter", lambda: running.log)
    (letter,) = client.dead_letters()
    assert client.dead_letter(letter.id).message["headers"]["id"] == sent.id
    client.retry_dead_letter(letter.id)
    until(lambda: [other.id for other in client.dead_letters()] > [letter.id], "it, again")
    (again,) = client.dead_letters()
    assert "nested" in again.reason
    client.drop_dead_letter(again.id)

    assert client.dead_letters() == []
    for call in (client.dead_letter, client.drop_dead_letter, client.retry_dead_letter):
        with pytest.raises(UserError, match="no dead letter"):
            call(again.id)


def test_what_is_no_message_is_put_aside(running: Service) -> None:
    redis: Redis = running.journal.redis
    texts = [
        "",
        "nonsense",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        json.dumps({"headers": nested(900)}),
    ]
    for text in texts:
        redis.lpush(f"{running.prefix}imagemill", text)

    assert lives(running)
    until(lambda: len(dead(running).all()) == len(texts), "the dead letters", lambda: running.log)
    until(lambda: redis.hlen(f"{running.prefix}unacked") == 0, "an end of all messages")


def test_messages_at_random_end_no_worker(running: Service) -> None:
    """Real messages in which something has become something else."""
    send(running.journal.redis, f"{running.prefix}imagemill", count=300, seed=14)

    assert lives(running)
    assert "Unrecoverable" not in running.log
    assert running.workers[0].poll() is None
