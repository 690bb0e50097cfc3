"""The wiring of the chain: which steps follow which, and in whose queue.

    build_image ⇒ load_config | hash_source | check_registry | report
                                              ⇒ push                            where further tags are asked for
                                              ⇒ graft | push                    where the image has to be made
                    graft                     ⇒ upload_context | build          unless it could make it itself
                                              ⇒ check_registry, a bit later     where another build is making it

`⇒` is `Task.replace`: a step gives way to others, and what was to follow it follows them. So
`report` is always last, and has the id of the caller's task: the build's id stays the same, and its
result is the report. Steps are named, not imported, since the wiring knows nothing of their work.
"""

from typing import Any

from celery import chain, current_app
from celery.canvas import Signature

from imagemill.messages import Build
from imagemill.names import BUILD_IMAGE, LIGHT, build_queue, task_name


def start(build: Build) -> Signature:
    """The whole chain where nothing has to be built; whatever fails in it is reported once."""
    steps = [_step(name, build) for name in ("hash_source", "check_registry")]
    # With the entry's id it also has the entry's name in logs and in Flower.
    report = _step("report", build).set(shadow=BUILD_IMAGE)
    return chain(_first("load_config", build), *steps, report).on_error(
        _step("report_failure", build)
    )


def make(build: Build, builder: str) -> Signature:
    """What makes the image; no context is packed for a builder that never builds."""
    if builder == "noop":
        return _first("build", build, build_queue(builder))
    assert build.config is not None
    graft = build.config.builder.graft is not False and build.request.graft
    if graft and not build.request.force:
        return _first("graft", build) | _step("push", build)
    return pack_and_build(build, builder) | _step("push", build)


def learn(build: Build) -> None:
    """Have what is in the layers of an image read, by whoever has time; nobody waits for it."""
    _first("read_layers", build).apply_async()


def pack_and_build(build: Build, builder: str) -> Signature:
    """The first two steps of making an image; on their own where the packed context is gone."""
    return chain(_first("upload_context", build), _step("build", build, build_queue(builder)))


def tag(build: Build) -> Signature:
    """What gives further tags to an image that exists."""
    return _first("push", build)


def wait(build: Build, seconds: float) -> Signature:
    """Look again after a while."""
    return _first("check_registry", build).set(countdown=seconds)


def _first(name: str, build: Build, queue: str = LIGHT) -> Signature:
    """The first step of a chain gets the message; each other one gets what the one before it
    returns.
    """
    return _step(name, build, queue).clone(args=(build.dump(),))


def _step(name: str, build: Build, queue: str = LIGHT) -> Signature:
    """A signature whose description in logs and in Flower is the build's id, never the message
    itself.
    """
    options: dict[str, Any] = {"queue": queue, "argsrepr": f"({build.id})", "kwargsrepr": "{}"}
    return current_app.signature(task_name(name), **options)
