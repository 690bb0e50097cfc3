"""Instead of the steps that make an image: for several platforms there is a build for each, and
this one joins their images under one digest.
"""

from collections.abc import Mapping
from typing import Any

from imagemill.errors import BuildCancelled, ImagemillError, OperatorError, TransientError
from imagemill.messages import Build, BuildReport, Failure, State
from imagemill.names import STEPS
from imagemill.registries.image_index import push
from tasks import pipeline, platforms
from tasks.pipeline import Next
from tasks.run import Run
from tasks.settings import journal, records
from tasks.step import alone, step
from tasks.workspace import Workspace, image_blobs


@step(State.BUILDING)
@alone
def build_platforms(run: Run, work: Workspace) -> Build | Next:
    """Learn `digest`, of the index over the images of all platforms; or wait for their builds."""
    build = work.build
    reports = {platform: _report(run, work, platform) for platform in build.platforms}
    for platform, report in reports.items():
        if report is not None and report.error is not None:
            raise _failed(platform, report.error)
    if None in reports.values():
        return Next("build_platforms", build, run.setup.wait_interval, build.id)
    run.enter(State.PUSHING)
    images = {
        platform: work.image.with_tag(None).with_digest(report.digest)
        for platform, report in reports.items()
        if report is not None
    }
    for platform, image in images.items():
        run.log(f"{platform} is {image}")
    digest = push(image_blobs(run.setup, work.image), work.image, images)
    return build.knowing(digest=digest, **_way(reports))


def _way(reports: Mapping[str, BuildReport | None]) -> dict[str, Any]:
    """Return whether no image that was made needed a builder, or else why one did."""
    made = {platform: each for platform, each in reports.items() if each and each.built}
    reasons = (f"{name}: {each.not_grafted}" for name, each in made.items() if each.not_grafted)
    grafted = bool(made) and all(each.grafted for each in made.values())
    return {"grafted": grafted, "not_grafted": next(reasons, None)}


def _report(run: Run, work: Workspace, platform: str) -> BuildReport | None:
    """Return how the build for the platform ended; None if it has not, in which case it runs."""
    part = platforms.part_id(work.build, platform)
    report = journal().report(part)
    if report is None and not records().open(part):
        image = work.image.with_tag(work.build.platforms[platform])
        build = platforms.part(work.build, platform, str(image))
        if due := records().begin(build, "check_registry", STEPS, {}):
            run.log(f"{platform} is built by itself, as build {part}")
            pipeline.send(due)
    return report


def _failed(platform: str, failure: Failure) -> ImagemillError:
    """Return the error of a part as that of the whole: tried again it would be the same."""
    error = failure.exception()
    if isinstance(error, BuildCancelled):
        error = OperatorError("its build was cancelled", "build it again")
    error.message = f"For {platform}: {error.message}"
    if isinstance(error, TransientError):
        error.exhausted = True
    return error
