"""Third step: does the image exist? Decides what is left to do, and that one build at a time makes
an image.
"""

from celery.canvas import Signature

from imagemill.messages import Build, State
from imagemill.reference import ImageReference
from tasks import pipeline, workspace
from tasks.step import Run, step


@step(State.CHECKING)
def check_registry(run: Run, build: Build) -> Build | Signature:
    """Learn `existing_digest` and `digest`; or give way to the steps that make the image, or to a
    wait.
    """
    assert build.image is not None
    if build.source_hash is None or not build.request.force:
        image = ImageReference.parse(build.image)
        digest = image.digest or workspace.registry(run.setup, image).digest(image)
        if digest is not None or build.source_hash is None:
            build = build.knowing(existing_digest=digest, digest=digest)
            return pipeline.tag(build) if build.source_hash and build.request.tags else build
    lock = workspace.lock(run.setup, build)
    if not lock.acquire():
        return _wait(run, build, lock.holder())
    with run.holding(lock):
        return pipeline.make(build.knowing(locked=True), workspace.builder_type(build))


def _wait(run: Run, build: Build, holder: str) -> Signature:
    if not run.entered.again:
        run.log(f"Waiting for build {holder}, which is making the same image")
    return pipeline.wait(build, run.setup.wait_interval)
