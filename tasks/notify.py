"""Tells a web address that a build has ended; a task of its own, so no build waits for it."""

import logging
import random
from typing import Any

from celery import Task, current_app, shared_task

from imagemill.addresses import Reach, networks
from imagemill.errors import OperatorError, TransientError
from imagemill.extras import explained
from imagemill.messages import BuildReport
from imagemill.names import STEPS, task_name
from tasks.settings import setup

log = logging.getLogger(__name__)

TRIES = 12
"""How often an event is sent before it is given up: for about an hour."""

_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 600.0


def tell(report: BuildReport) -> None:
    """Have all webhooks of this service told of the report; they may be told again, by the same
    event, if the worker dies meanwhile.
    """
    if not setup().webhooks:
        return
    with explained():
        from imagemill import webhooks  # it brings packages that few workers need

    for number in range(len(setup().webhooks)):
        current_app.send_task(
            task_name("notify"),
            args=(number, webhooks.event(report)),
            queue=STEPS,
            argsrepr=f"({number}, {report.id})",
        )


@shared_task(bind=True, name=task_name("notify"), ignore_result=True, max_retries=None)
def notify(self: Task[Any, Any], number: int, event: dict[str, Any]) -> None:
    """Send the event to the webhook with this number among IMAGEMILL_WEBHOOKS.

    Its address is not in the message: it may hold a secret.
    """
    with explained():
        from imagemill import webhooks

    here = setup()
    if number >= len(here.webhooks):
        return  # the workers have been set otherwise since
    reach = Reach(
        networks=networks(here.webhook_networks),
        to_allow="add its network to IMAGEMILL_WEBHOOK_NETWORKS",
        plain=here.insecure_webhooks,
        plain_setting="IMAGEMILL_INSECURE_WEBHOOKS",
    )
    secret = here.webhook_secret_file
    try:
        key = webhooks.key(secret.read_text()) if secret else None
        webhooks.deliver(here.webhooks[number], event, key, reach)
    except TransientError as error:
        tried = self.request.retries
        if tried >= TRIES:
            log.error("The end of build %s could not be told: %s", event["id"], error)
            return
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**tried)
        pause = error.retry_after or random.uniform(longest / 2, longest)
        raise self.retry(countdown=pause, throw=False) from error
    except OperatorError as error:
        log.error("The end of build %s is not told: %s", event["id"], error)
