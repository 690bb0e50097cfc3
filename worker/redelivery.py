"""Quick redelivery on Redis: a worker's messages are its own for as long as it lives, and no
longer.

Kombu's Redis transport gives a message to another worker when it has not been acknowledged for the
visibility timeout. With that alone, the timeout has to exceed the longest build, and the build of a
worker that died lies still for as long. Here the timeout is short, and each worker renews the time
stamps of the messages that it holds, in the sorted set of kombu's documented option
`unacked_index_key`. See docs/adr/0007-quick-redelivery-on-redis.md.
"""

import time
from typing import Any

from celery import bootsteps
from celery.worker import state

RENEWALS = 4
"""How often a message is renewed within the visibility timeout."""


class KeepMessages(bootsteps.StartStopStep):
    """Part of a worker's consumer: renews the messages of all tasks that it runs, or will run after
    a wait.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, c: Any) -> None:
        interval = c.app.conf.broker_transport_options["visibility_timeout"] / RENEWALS
        self._timer = c.timer.call_repeatedly(interval, _renew, (c,))

    def stop(self, c: Any) -> None:
        timer = getattr(self, "_timer", None)
        if timer is not None:
            timer.cancel()


def _renew(consumer: Any) -> None:
    waiting = state.scheduled_requests  # type: ignore[attr-defined]  # not in celery-types yet
    requests = {*state.reserved_requests, *state.active_requests, *waiting}
    if not requests:
        return
    now = time.time()
    channel = consumer.task_consumer.channel
    with channel.conn_or_acquire() as client:
        # xx: what has been acknowledged meanwhile stays so.
        client.zadd(
            channel.unacked_index_key,
            {request.message.delivery_tag: now for request in requests},
            xx=True,
        )
