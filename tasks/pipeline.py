"""The wiring of the chain: which step follows which, and in whose queue.

    build_image → load_config → hash_source → check_registry → report
                                              → verify → report       where further tags are asked for
                                              → graft → verify → report
                                                      → upload_context → build → verify → report
                                              → build_platforms → verify → report
                                                for several platforms: an image for each, by a build
                                                of its own that begins with check_registry
                                              → check_registry, a bit later, where another build is
                                                making the image

Whatever fails goes on with `report`, too. The report has the id of the caller's task, and what the
caller has asked Celery to do with the result. Steps are named, not imported, since the wiring knows
nothing of their work.
"""

import json
import logging
import uuid
from dataclasses import dataclass
from typing import Any

from kombu.exceptions import OperationalError

from imagemill.config import Builder
from imagemill.messages import Build
from imagemill.names import BEGIN, BUILD_IMAGE, LIGHT, STEPS, build_queue, task_name, tenant_queue
from imagemill.state.records import Due
from imagemill.state.seal import BrokenSealError
from tasks.message import TaskMessage
from tasks.settings import records, seal, served_tenants

log = logging.getLogger(__name__)

MESSAGE, LAYERS = "imagemill-message-v1", "imagemill-layers-v1"
"""What seals on messages are for."""

FIRST = "load_config"
LAST = "report"

AFTER = {
    FIRST: "hash_source",
    "hash_source": "check_registry",
    "check_registry": LAST,
    "build_platforms": "verify",
    "graft": "verify",
    "upload_context": "build",
    "build": "verify",
    "verify": LAST,
}
"""What follows a step that does not say so itself."""


@dataclass(frozen=True)
class Next:
    """The step that a build goes on with, after `delay` seconds, or once `awaited` is woken: an
    image by the end of its build, a build for several platforms by the end of each of its parts.
    """

    step: str
    build: Build
    delay: float = 0
    awaited: str = ""


def wait_for_image(build: Build, seconds: float) -> Next:
    """Return the wait for another build that makes the same image."""
    return Next("check_registry", build.knowing(waited=True), seconds, build.image or "")


def make(build: Build, builder: Builder) -> Next:
    """Return what makes the image; no context is packed for a builder that never builds."""
    if builder.type == "noop":
        return Next("build", build)
    if build.platforms:
        return Next("build_platforms", build)
    wanted = build.request.graft and not build.request.anew and builder.graft is not False
    return Next("graft" if wanted else "upload_context", build)


def learn(build: Build, delay: float = 0) -> None:
    """Have what is in the layers of an image read, by whoever has time after `delay` seconds; nobody
    waits for it.
    """
    options: dict[str, Any] = {"queue": LIGHT, "argsrepr": f"({build.id})", "kwargsrepr": "{}"}
    sealed = seal().close(LAYERS, build.id, json.dumps(build.dump()))
    message = TaskMessage(task_name("read_layers"), [build.id, sealed], options)
    if delay:
        message.send_later(f"{build.id}:layers:{uuid.uuid4().hex}", delay)
    else:
        message.send()


def queue(step: str, build: Build) -> str:
    """Return the queue of a step: that of the builder for `build`, else that of all light steps.

    Where builds wait, to begin and for a builder, each tenant has a queue of its own.
    """
    shared = STEPS
    if step == "build" and build.config is not None:
        shared = build_queue(build.config.builder)
    if build.tenant not in served_tenants() or (shared == STEPS and step != FIRST):
        return shared
    return tenant_queue(BEGIN if step == FIRST else shared, build.tenant)


def sent(message: Any, step: str) -> Due:
    """Return what the message of a step says is due; `BrokenSealError` if no worker sent it."""
    if isinstance(message, dict):
        build, turn, sealed = (message.get(name) for name in ("id", "turn", "seal"))
        if isinstance(build, str) and type(turn) is int and isinstance(sealed, str):
            due = Due(build, turn, step, "")
            seal().open(MESSAGE, build, f"{sealed}\n{_said(due)}")
            return due
    raise BrokenSealError


def _said(due: Due) -> str:
    return f"{due.turn} {due.step}"


def send(due: Due) -> None:
    """Send the message that a step is due. Where the broker is away it is left to the reaper."""
    try:
        _message(due).send()
    except OperationalError as error:
        log.warning("The message of step %s could not be sent: %s", due.step, error)


def send_later(due: Due, delay: float, *awaited: str) -> None:
    """Have it sent after `delay` seconds, or once the build of the image `awaited` has ended, or its
    own is to stop.
    """
    _message(due).send_later(f"{due.build}:{due.turn}", delay, due.build, *awaited)


def _message(due: Due) -> TaskMessage:
    # In logs and in Flower a step is described by its build's id.
    options: dict[str, Any] = {"queue": due.queue, "root_id": due.build}
    options |= {"argsrepr": f"({due.build})", "kwargsrepr": "{}"}
    if due.step == LAST:
        # With the entry's id it also has the entry's name.
        options |= {"task_id": due.build, "shadow": BUILD_IMAGE, **records().canvas(due.build)}
    hint = {
        "id": due.build,
        "turn": due.turn,
        "seal": seal().close(MESSAGE, due.build, _said(due)).partition("\n")[0],
    }
    return TaskMessage(task_name(due.step), [hint], options)
