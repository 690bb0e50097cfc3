"""Last step: the report, and nothing left behind."""

import time

from imagemill.messages import Build, BuildReport, State, StepTime
from imagemill.reference import ImageReference
from tasks.cleanup import clean_up
from tasks.settings import journal
from tasks.step import Run, step


@step(
    State.REPORTING,
    ignore_result=False,
    Request="tasks.events:ReportRequest",
    # Its id is the entry's, whose beginning and arguments Flower is to go on showing.
    send_events=False,
    resultrepr_maxsize=400,  # for Flower: up to the image, its tags and its hash
)
def report(run: Run, build: Build) -> BuildReport:
    """The build's result."""
    done = _report(build, run.entered.steps)
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
        grafted=build.grafted,
        not_grafted=build.not_grafted,
        steps=ended(steps, now),
        seconds=now - build.started,
        warnings=build.warnings,
    )


def ended(steps: tuple[StepTime, ...], now: float) -> tuple[StepTime, ...]:
    """The times, with the last of them ended too."""
    return (*steps[:-1], steps[-1].model_copy(update={"ended": now})) if steps else ()
