"""Third step: does the image exist? Decides what is left to do, and that one build at a time makes
an image.
"""

import time

from imagemill.messages import Build, State
from tasks import pipeline
from tasks.cleanup import taken_over
from tasks.pipeline import Next
from tasks.run import Run
from tasks.step import step
from tasks.workspace import Workspace


@step(State.CHECKING)
def check_registry(run: Run, work: Workspace) -> Build | Next:
    """Learn `existing_digest` and `digest`; or go on with the steps that make the image, or with a
    wait.
    """
    build = work.build
    if build.source_hash is None or not build.request.anew:
        digest = work.image.digest or work.registry.digest(work.image)
        if digest is not None or build.source_hash is None:
            build = build.knowing(existing_digest=digest, digest=digest)
            return Next("verify", build) if build.source_hash and build.request.tags else build
    lock = work.lock
    if not (lock.acquire() or taken_over(lock)):
        if not run.entered.again:
            run.log(f"Waiting for build {lock.holder()}, which is making the same image")
        waited = time.time() - run.entered.steps[-1].started
        delay = pause(waited, run.setup.wait_interval, run.setup.lock_lease)
        return pipeline.wait_for_image(work.build, delay)
    with run.holding(lock):
        return pipeline.make(build.knowing(locked=True), work.config.builder)


def pause(waited: float, interval: float, lease: float) -> float:
    """Return the seconds until a build looks again that has `waited` so long.

    It is woken by the end of the other one. So it looks ever more seldom, yet as often as a lock may
    be left by a worker that died.
    """
    return max(interval, min(waited, lease))
