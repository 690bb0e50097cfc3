"""Celery's consumer, with a guard before it."""

from logging import getLogger
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

from imagemill.errors import UserError
from imagemill.grammar import BUILD_ID
from imagemill.messages import MOST_BYTES, BuildReport, Failure
from imagemill.names import BUILD_IMAGE
from imagemill.state.journal import LOST
from tasks.settings import journal, put_aside
from worker import guard

log = getLogger(__name__)


class Consumer(CeleryConsumer):
    """Hands on what the guard lets pass; what it refuses goes to the dead letters, and is told to
    whoever asked for a build by it.
    """

    connection_errors: Any

    def create_task_handler(self, *args: Any, **options: Any) -> Any:
        """Return Celery's handler of messages, behind the guard."""
        handle = super().create_task_handler(*args, **options)

        def on_task_received(message: Any) -> None:
            try:
                guard.check(message, self.app.tasks)
            except guard.Refused as refused:
                self._put_aside(message, str(refused))
            else:
                handle(message)

        return on_task_received

    def _put_aside(self, message: Any, reason: str) -> None:
        queue = (message.delivery_info or {}).get("routing_key") or ""
        log.error("A message from the queue %s is refused: %s", queue, reason)
        try:
            put_aside(str(queue), reason, _kept(message))
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


def _kept(message: Any) -> dict[str, Any]:
    body = message.body or ""
    text = body if isinstance(body, str) else bytes(body).decode(errors="replace")
    return {
        "headers": guard.shallow(message.headers),
        "content_type": str(message.content_type),
        "body": text[:MOST_BYTES],
    }
