"""Sixth step: see that the registry has what was pushed, and add the further tags there."""

from imagemill.builders.graft.grafting import MOST_READ_AT_ONCE
from imagemill.errors import ImagemillError, TransientError
from imagemill.messages import Build, State
from tasks import pipeline
from tasks.graft import note
from tasks.run import Run
from tasks.step import step
from tasks.workspace import Workspace

READ_WITHIN = 60.0
"""Seconds until somebody begins to read what is in the layers that others wait for."""


@step(State.VERIFYING)
def verify(run: Run, work: Workspace) -> Build:
    """Learn nothing more: make sure that `digest` is true, and tag it."""
    build, image, registry = work.build, work.image, work.registry
    found = registry.digest(image)
    if found != build.digest:
        raise TransientError(
            f"The registry has {found or 'nothing'} under {image}, where {build.digest} was pushed",
            "see whether something else pushes to this repository, or deletes from it",
        )
    if build.request.tags:
        registry.tag(image.with_digest(build.digest), build.request.tags)
        for tag in build.request.tags:
            work.known_bases.forget(str(image.with_tag(tag)))
    if build.graft_key is not None:
        _learn(run, work)
    return build


def _learn(run: Run, work: Workspace) -> None:
    """Have the image kept in mind for builds that change its code; of the command line's own
    service, which ends with the build, at once, if that takes no time to speak of.
    """
    if not run.setup.attended:
        work.dependencies.hand_over(READ_WITHIN)
        pipeline.learn(work.build)
        return
    try:
        note(work, MOST_READ_AT_ONCE)
    except ImagemillError as error:  # the image is there, and is what was asked for
        run.log(f"The next change of code needs a builder, too: {error.message}")
