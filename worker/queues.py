"""The queues on RabbitMQ: replicated ones (quorum queues), each with an end of what cannot be worked
with.

The entry is not among them: whoever asks for a build declares it, in any Celery application, so it
is what Celery makes of its name. What lies in the others are hints to what is in the records, so a
queue that is of an earlier version may be deleted. See docs/adr/0025-what-waits-lies-in-redis.md.
"""

from typing import Any

from amqp.exceptions import PreconditionFailed
from kombu import Exchange, Queue

from imagemill.errors import OperatorError
from imagemill.names import BUILD_KEEP_SECONDS, BUILDERS, DEAD, STEPS, build_queue

DELIVERIES = 100
"""How often a message is delivered again before RabbitMQ takes it for dead. Deaths of workers in a
step are counted in its record, and far fewer are allowed; a Redis that is away has messages come
again, too.
"""

_REPLICATED = {
    "x-queue-type": "quorum",
    # RabbitMQ's own would be half an hour. No build is known for longer than this; the time of each
    # is bounded by its worker.
    "x-consumer-timeout": BUILD_KEEP_SECONDS * 1000,
}
_BURIED = {
    "x-delivery-limit": DELIVERIES,
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": DEAD,
}


def declared() -> tuple[Queue, ...]:
    """Return the queues that are the workers' own."""
    names = (STEPS, *map(build_queue, BUILDERS))
    return (*map(declaration, names), _queue(DEAD, {"x-delivery-limit": 10**6}))


def declaration(name: str) -> Queue:
    """Return a queue of steps as it is on RabbitMQ."""
    return _queue(name, _BURIED)


def _queue(name: str, more: dict[str, Any]) -> Queue:
    return Queue(name, Exchange(name), name, queue_arguments=_REPLICATED | more)


def prepare(connection: Any) -> None:
    """Declare all of them; one of another kind that nobody serves makes room. `OperatorError` if it
    is served.
    """
    for queue in declared():
        try:
            _declare(connection, queue)
        except PreconditionFailed:
            _delete(connection, queue.name)
            _declare(connection, queue)


def reason(headers: dict[str, Any]) -> tuple[str, str]:
    """Return from which queue RabbitMQ took a dead message, and why."""
    why = headers.get("x-first-death-reason")
    queue = str(headers.get("x-first-death-queue") or DEAD)
    if why == "delivery_limit":
        return queue, f"it was delivered more than {DELIVERIES} times"
    return queue, "no worker knows its task" if why == "rejected" else f"RabbitMQ says: {why}"


def _declare(connection: Any, queue: Queue) -> None:
    with connection.channel() as channel:
        queue.bind(channel).declare()


def _delete(connection: Any, name: str) -> None:
    try:
        with connection.channel() as channel:
            channel.queue_delete(name, if_unused=True)
    except PreconditionFailed:
        raise OperatorError(
            f"RabbitMQ has a queue {name} of another version of Imagemill, and workers serve it",
            "stop those workers first: docs/operating.md, Upgrades",
        ) from None
