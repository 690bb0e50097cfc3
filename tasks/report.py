"""Last step: the report of a build that has succeeded, failed or was cancelled, and nothing left
behind.
"""

import logging
import time

from imagemill.errors import BuildCancelled
from imagemill.messages import Build, BuildReport, State, StepTime
from imagemill.sources import unversioned
from imagemill.state.grafts import FolderShelf
from imagemill.state.last_builds import LastBuilds
from tasks import notify, platforms
from tasks.cleanup import clean_up, discard
from tasks.run import Run
from tasks.settings import journal
from tasks.signals import build_ended
from tasks.step import step
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

_WITH_REMAINS = (State.BUILDING, State.PUSHING, State.VERIFYING)
"""Where a build has been at its builder, which may have left something behind."""


@step(
    State.REPORTING,
    ignore_result=False,
    Request="tasks.events:ReportRequest",
    # Its id is the entry's, whose beginning and arguments Flower is to go on showing.
    send_events=False,
    resultrepr_maxsize=400,  # for Flower: up to the image, its tags and its hash
)
def report(run: Run, work: Workspace) -> BuildReport:
    """Return the build's result: the report that stands, should it have been written before."""
    run.flush()
    made = _failed if work.build.failure else _succeeded
    report = made(work, _ended(run.entered.steps, time.time()))
    stands = journal().end(run.build_id, report)
    if work.build.part_of is None:
        if stands == report:
            build_ended.send(sender=None, build=work.build, report=report)
            _note(work, report)
        notify.tell(stands)
    failure = work.build.failure
    if failure is not None and failure.state in _WITH_REMAINS:
        discard(work)
    if failure is not None:
        for platform in work.build.platforms:
            journal().ask_to_cancel(platforms.part_id(work.build, platform))
    clean_up(work)
    if work.build.in_line or work.build.tenant:
        work.quotas.leave(work.build.tenant or "", work.build.id)
    how = stands.image or (stands.error and stands.error.message)
    log.info("The build has %s in %.1f s: %s", stands.status, stands.seconds, how)
    return stands


def _succeeded(work: Workspace, steps: tuple[StepTime, ...]) -> BuildReport:
    build, image = work.build, work.image.with_digest(work.build.digest)
    tags = [image.tag, *build.request.tags] if build.source_hash else [image.tag]
    return BuildReport(
        id=build.id,
        status="succeeded",
        image=image.pinned if build.digest else str(image),
        digest=build.digest,
        tags=tuple(f"{image.repository}:{tag}" for tag in tags if tag),
        source_hash=build.source_hash,
        built=bool(build.source_hash) and build.existing_digest is None,
        builder=_builder(build),
        grafted=build.grafted,
        not_grafted=build.not_grafted,
        steps=steps,
        seconds=time.time() - build.started,
        warnings=build.warnings,
    )


def _note(work: Workspace, report: BuildReport) -> None:
    """Have `imagemill plan` know the build, where no service does once it has ended."""
    if not work.setup.attended or report.source_hash is None or report.error is not None:
        return
    if record := work.input_records.find_dumped(report.source_hash):
        builds = LastBuilds(FolderShelf(work.setup.kept / "builds"))
        source = unversioned(work.build.request.source)
        builds.note(source, work.image.repository, report, record)


def _failed(work: Workspace, steps: tuple[StepTime, ...]) -> BuildReport:
    build, failure = work.build, work.build.failure
    cancelled = failure is not None and failure.kind == BuildCancelled.__name__
    return BuildReport(
        id=build.id,
        status="cancelled" if cancelled else "failed",
        source_hash=build.source_hash,
        builder=_builder(build),
        steps=steps,
        seconds=time.time() - build.started,
        warnings=build.warnings,
        error=failure,
    )


def _builder(build: Build) -> str | None:
    return build.config.builder if build.config else None


def _ended(steps: tuple[StepTime, ...], now: float) -> tuple[StepTime, ...]:
    """Return the times, with the last of them ended too."""
    return (*steps[:-1], steps[-1].model_copy(update={"ended": now})) if steps else ()
