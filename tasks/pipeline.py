"""The wiring of the chain: which steps follow which, and in whose queue.

    build_image ⇒ load_config | hash_source | check_registry
                                              ⇒ report                        where the image exists or needs no build
                                              ⇒ upload_context | build        else, where
                                                                 build ⇒ push | report

`⇒` is `Task.replace`: the last step of each part keeps the id of the caller's task, so that the build's id stays
the same and its result is the report. Steps are named, not imported, since the wiring knows nothing of their work.
"""

from typing import Any

from celery import chain, current_app
from celery.canvas import Signature

from imagemill.build import Build

LIGHT = "imagemill"
"""Queue of all steps but `build`."""


def build_queue(builder: str) -> str:
    """The queue of the worker pool for a type of builder (`docker`, `kaniko`, `noop`)."""
    return f"{LIGHT}.{builder}"


def start(build: Build) -> Signature:
    """The first part; whatever fails in it, or in what it is replaced with, is reported once."""
    parts = _chain(build, "load_config", "hash_source", "check_registry")
    return parts.on_error(_step("report_failure", build))


def make(build: Build, builder: str) -> Signature:
    """What is left to do where the image has to be built; no context is packed for a builder that never builds."""
    steps = ("build",) if builder == "noop" else ("upload_context", "build")
    return _chain(build, *steps, queues={"build": build_queue(builder)})


def publish(build: Build) -> Signature:
    """What is left to do once a builder has made the image."""
    return _chain(build, "push", "report")


def finish(build: Build) -> Signature:
    """What is left to do where nothing has to be built."""
    return _chain(build, "report")


def wait(build: Build, seconds: float) -> Signature:
    """Ask again after a while: another build is making the same image."""
    return _chain(build, "check_registry").set(countdown=seconds)


def _chain(build: Build, *steps: str, queues: dict[str, str] | None = None) -> Signature:
    queues = queues or {}
    # Only the first gets the message; each of the others gets what the one before it returns.
    first, *others = steps
    begin = _step(first, build, queues.get(first, LIGHT), build.dump())
    return chain(begin, *(_step(name, build, queues.get(name, LIGHT)) for name in others)) if others else begin


def _step(name: str, build: Build, queue: str = LIGHT, *args: Any) -> Signature:
    """A signature whose description in logs and in Flower is the build's id, never the message itself."""
    return current_app.signature(f"imagemill.{name}", args=args, queue=queue, argsrepr=f"({build.id})", kwargsrepr="{}")
