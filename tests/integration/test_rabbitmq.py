"""The workers' own queues on a real RabbitMQ: replicated, with an end of what is dead."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import amqp
import pytest
from amqp.exceptions import PreconditionFailed
from kombu import Connection

import servers
from imagemill.messages import BuildRequest
from service import Service, service, until
from worker.queues import DELIVERIES, declared

NOTHING_TO_BUILD = BuildRequest(source=f"docker-image://localhost:1/x@sha256:{64 * '0'}")
STEPS = "imagemill.steps"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A RabbitMQ whose queues are these tests' alone."""
    with servers.rabbitmq_server(tmp_path_factory.mktemp("rabbitmq")) as url:
        yield url


@pytest.fixture
def connection(url: str) -> Iterator[Any]:
    with Connection(url) as connection:
        yield connection


@pytest.fixture
def running(
    url: str, redis_url: str, key_prefix: str, tmp_path: Path, connection: Any
) -> Iterator[Service]:
    """A service without workers and queues yet."""
    with service(url, redis_url, key_prefix, tmp_path, IMAGEMILL_REDELIVERY_SECONDS="1") as running:
        yield running
    for name in ("imagemill", STEPS, "imagemill.docker", "imagemill.kaniko", "imagemill.noop"):
        with connection.channel() as channel:
            channel.queue_delete(name)


def classic(connection: Any, name: str) -> None:
    """Declare a queue as Celery does by itself."""
    with connection.channel() as channel:
        channel.queue_declare(name, durable=True, auto_delete=False)


def builds(running: Service) -> bool:
    build = running.client.submit(NOTHING_TO_BUILD)
    return running.client.wait(build, timeout=60).status == "succeeded"


def send_step(running: Service, step: str) -> None:
    """Send a message as workers do."""
    (queue,) = (queue for queue in declared() if queue.name == STEPS)
    app: Any = running.client.app  # celery-types knows names of queues alone
    app.send_task(f"imagemill.{step}", queue=queue)


def letters(running: Service) -> list[tuple[str, str]]:
    return [(letter.queue, letter.reason) for letter in running.client.dead_letters()]


def test_all_queues_but_the_entry_are_quorum_queues(running: Service, connection: Any) -> None:
    running.start()
    assert builds(running)
    classic(connection, "imagemill")
    for queue in declared():
        assert (queue.queue_arguments or {})["x-queue-type"] == "quorum"
        with connection.channel() as channel:
            queue.bind(channel).declare()
    for name in (STEPS, "imagemill.docker", "imagemill.kaniko", "imagemill.noop", "imagemill.dead"):
        with pytest.raises(PreconditionFailed):
            classic(connection, name)


def test_queues_of_an_earlier_version_are_replaced(running: Service, connection: Any) -> None:
    for name in (STEPS, "imagemill.docker"):
        classic(connection, name)
    with connection.channel() as channel:
        channel.basic_publish(amqp.Message("an old step"), routing_key=STEPS)
    running.start()
    assert builds(running)
    with pytest.raises(PreconditionFailed):
        classic(connection, STEPS)


def test_a_worker_says_that_old_workers_have_to_be_stopped(
    running: Service, connection: Any
) -> None:
    classic(connection, STEPS)
    with connection.channel() as channel:
        channel.basic_consume(STEPS, callback=print)
        with pytest.raises(AssertionError, match="stop those workers first"):
            running.start("first")
    assert running.workers[0].wait() == 78
    running.start("second")
    assert builds(running)


def test_a_message_of_a_task_that_no_worker_knows_is_a_dead_letter(running: Service) -> None:
    running.start()
    send_step(running, "nothing")
    until(lambda: bool(letters(running)), "the dead letter", lambda: running.log)
    assert letters(running) == [(STEPS, "no worker knows its task")]
    (letter,) = running.client.dead_letters()
    assert not [name for name in letter.message["headers"] if name.startswith("x-")]
    assert builds(running)


def test_a_message_that_is_delivered_time_and_again_is_a_dead_letter(
    running: Service, connection: Any
) -> None:
    first = running.start("first")
    running.kill(first)
    send_step(running, "report")
    with connection.channel() as channel:
        for _ in range(DELIVERIES + 1):
            until(lambda: given_back(channel), "the message")
    running.start("second")
    until(lambda: bool(letters(running)), "the dead letter", lambda: running.log)
    (letter,) = running.client.dead_letters()
    assert (letter.queue, letter.reason) == (
        STEPS,
        f"it was delivered more than {DELIVERIES} times",
    )
    running.client.drop_dead_letter(letter.id)
    assert builds(running)


def given_back(channel: Any) -> bool:
    """Take a message, and say that somebody else is to have it; whether there was one."""
    message = channel.basic_get(STEPS)
    if message is None:
        return False
    channel.basic_reject(message.delivery_tag, requeue=True)
    return True
