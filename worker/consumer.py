"""Celery's consumer, with a guard before it."""

from logging import getLogger
from os import EX_CONFIG
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

from imagemill.errors import OperatorError, UserError
from imagemill.grammar import BUILD_ID
from imagemill.messages import MOST_BYTES, BuildReport, Failure
from imagemill.names import BUILD_IMAGE, DEAD
from imagemill.state.journal import LOST
from tasks.settings import journal, put_aside
from worker import guard, queues

log = getLogger(__name__)


class Consumer(CeleryConsumer):
    """Hands on what the guard lets pass; what it refuses goes to the dead letters, and is told to
    whoever asked for a build by it.
    """

    connection_errors: Any

    # celery-types has it as a variable.
    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[valid-type,misc]
        """Celery's parts, but for 28 queues on RabbitMQ for what is to be sent later: that lies in
        Redis.
        """

        default_steps = tuple(
            part
            for part in CeleryConsumer.Blueprint.default_steps
            if "delayed_delivery" not in part
        )

    def __init__(self, *args: Any, **options: Any) -> None:
        # Workers take no advice of each other: whoever may publish could give it in their names,
        # such as which builds to pass over.
        alone = {"without_mingle": True, "without_gossip": True}
        options["worker_options"] = {**(options.get("worker_options") or {}), **alone}
        super().__init__(*args, **options)

    def connect(self) -> Any:
        """Connect, and have RabbitMQ's queues ready; the worker ends where they cannot be."""
        connection = super().connect()
        if DEAD in self.app.amqp.queues:
            try:
                queues.prepare(connection)
            except OperatorError as error:
                log.critical("%s: %s", error.message, error.hint)
                raise SystemExit(EX_CONFIG) from None
        return connection

    def create_task_handler(self, *args: Any, **options: Any) -> Any:
        """Return Celery's handler of messages, behind the guard."""
        handle = super().create_task_handler(*args, **options)

        def on_task_received(message: Any) -> None:
            if _queue_of(message) == DEAD:
                self._put_aside(message, *queues.reason(message.headers or {}))
                return
            try:
                guard.check(message, self.app.tasks)
            except guard.Refused as refused:
                self._put_aside(message, _queue_of(message), str(refused))
            else:
                handle(message)

        return on_task_received

    def _put_aside(self, message: Any, queue: str, reason: str) -> None:
        log.error("A message from the queue %s is refused: %s", queue, reason)
        try:
            put_aside(queue, reason, _kept(message))
            self._tell(message.headers, reason)
        except LOST as error:
            log.warning("It stays in its queue, since Redis went away: %s", error)
            message.reject_log_error(log, self.connection_errors, requeue=True)
            return
        message.ack_log_error(log, self.connection_errors)

    def _tell(self, headers: Any, reason: str) -> None:
        """End the build that the message asks for, if its headers say as much."""
        if not isinstance(headers, dict) or headers.get("task") != BUILD_IMAGE:
            return
        build = headers.get("id")
        if not isinstance(build, str) or not BUILD_ID.fits(build):
            return
        error = UserError(
            f"The build request cannot be read: {reason}",
            "docs/schema/build-request.json says what a request is",
        )
        journal().end(build, BuildReport(id=build, status="failed", error=Failure.of(error)))
        self.app.backend.store_result(build, error, "FAILURE")


def _queue_of(message: Any) -> str:
    return str((message.delivery_info or {}).get("routing_key") or "")


def _kept(message: Any) -> dict[str, Any]:
    body = message.body or ""
    text = body if isinstance(body, str) else bytes(body).decode(errors="replace")
    # What RabbitMQ has noted of the death of a message is not to be sent with it again.
    headers = {
        name: value
        for name, value in guard.shallow(message.headers).items()
        if not name.startswith("x-")
    }
    return {
        "headers": headers,
        "content_type": str(message.content_type),
        "body": text[:MOST_BYTES],
    }
