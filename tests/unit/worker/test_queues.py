"""The queues that workers declare on RabbitMQ."""

import pytest

from imagemill.names import BUILD_TIMEOUT, DEAD, LIGHT, POOLS, STEPS
from worker import queues
from worker.celeryconfig import configuration
from worker.settings import Settings

RABBITMQ = Settings(broker="amqp://localhost//", backend="redis://localhost")


def test_all_but_the_entry_are_replicated_and_outlast_a_build() -> None:
    arguments = {queue.name: queue.queue_arguments or {} for queue in queues.declared()}
    served = {name for pool in POOLS.values() for name in pool.queues}
    assert set(arguments) == (served | {STEPS, DEAD}) - {LIGHT}
    assert {each["x-queue-type"] for each in arguments.values()} == {"quorum"}
    assert min(each["x-consumer-timeout"] for each in arguments.values()) > 1000 * BUILD_TIMEOUT


def test_only_rabbitmq_is_told_of_them() -> None:
    assert configuration(RABBITMQ)["task_queues"]
    assert not configuration(Settings(broker="redis://localhost"))["task_queues"]


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("delivery_limit", "more than 100 times"),
        ("rejected", "no worker knows its task"),
        ("expired", "RabbitMQ says: expired"),
    ],
)
def test_why_a_message_is_dead_is_said(why: str, said: str) -> None:
    headers = {"x-first-death-queue": STEPS, "x-first-death-reason": why}
    queue, reason = queues.reason(headers)
    assert queue == STEPS
    assert said in reason


def test_a_message_that_somebody_put_there_is_dead_too() -> None:
    assert queues.reason({})[0] == DEAD
