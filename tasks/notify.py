"""Tells a web address that a build has ended; a task of its own, so no build waits for it."""

import logging
import random
from typing import Any

from celery import shared_task

from imagemill.addresses import Reach, networks
from imagemill.errors import OperatorError, TransientError
from imagemill.extras import explained
from imagemill.messages import BuildReport
from imagemill.names import STEPS, task_name
from tasks.message import TaskMessage
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
        _message(number, webhooks.event(report)).send()


def _message(number: int, event: dict[str, Any], tried: int = 0) -> TaskMessage:
    options = {"queue": STEPS, "argsrepr": f"({number}, {event['id']})"}
    return TaskMessage(task_name("notify"), [number, event, tried], options)


@shared_task(name=task_name("notify"), ignore_result=True)
def notify(number: int, event: dict[str, Any], tried: int = 0) -> None:
    """Send the event to the webhook with this number among IMAGEMILL_WEBHOOKS, to which it was sent
    `tried` times.

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
        if tried >= TRIES:
            log.error("The end of build %s could not be told: %s", event["id"], error)
            return
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**tried)
        pause = error.retry_after or random.uniform(longest / 2, longest)
        log.warning("The end of build %s is told again in %.0f s: %s", event["id"], pause, error)
        message = _message(number, event, tried + 1)
        message.send_later(f"notify:{event['id']}:{number}:{tried}", pause)
    except OperatorError as error:
        log.error("The end of build %s is not told: %s", event["id"], error)
