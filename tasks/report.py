"""Last step: the report, and nothing left behind."""

import logging
import time

from imagemill.build import Build, BuildReport, State, StepTime
from imagemill.errors import ImagemillError
from imagemill.reference import ImageReference
from tasks import resolve
from tasks.setup import Setup, journal
from tasks.step import Run, step

log = logging.getLogger(__name__)


@step(
    State.REPORTING,
    ignore_result=False,
    Request="tasks.events:ReportRequest",
    # Its id is the entry's, whose beginning and arguments Flower is to go on showing.
    send_events=False,
    resultrepr_maxsize=1000,
)
def report(run: Run, build: Build) -> BuildReport:
    """The build's result."""
    done = _report(build, run.steps)
    run.flush()
    journal().end(build.id, done)
    clean_up(run.setup, build)
    return done


def _report(build: Build, steps: tuple[StepTime, ...]) -> BuildReport:
    assert build.image is not None
    image = ImageReference.parse(build.image).with_digest(build.digest)
    tags = [image.tag, *build.request.tags] if build.source_hash else [image.tag]
    now = time.time()
    return BuildReport(
        id=build.id,
        status="succeeded",
        image=image.pinned if build.digest else str(image),
        digest=build.digest,
        tags=tuple(f"{image.repository}:{tag}" for tag in tags if tag),
        source_hash=build.source_hash,
        built=bool(build.source_hash) and build.existing_digest is None,
        builder=build.config.builder.type if build.config else None,
        steps=ended(steps, now),
        seconds=now - build.started,
        warnings=build.warnings,
    )


def ended(steps: tuple[StepTime, ...], now: float) -> tuple[StepTime, ...]:
    """The times, with the last of them ended too."""
    return (*steps[:-1], steps[-1].model_copy(update={"ended": now})) if steps else ()


def clean_up(setup: Setup, build: Build) -> None:
    """Free the image's lock and remove the context; what cannot be removed now is left to `sweep`."""
    if build.locked:
        resolve.lock(setup, build).release()
    if build.context:
        try:
            resolve.contexts(setup, build).delete(build.context)
        except (ImagemillError, OSError) as error:
            log.warning("The context %s stays behind: %s", build.context, error)


def discard(setup: Setup, build: Build) -> None:
    """End what a builder may have left behind elsewhere, if the worker that began the build has died."""
    try:
        resolve.builder(setup, build).discard(build.id)
    except ImagemillError as error:
        log.warning("What may be left of the build could not be removed: %s", error)
