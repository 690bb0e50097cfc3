"""Sixth step: see that the registry has what was pushed, and add the further tags there."""

from imagemill.errors import TransientError
from imagemill.messages import Build, State
from imagemill.reference import ImageReference
from tasks import pipeline, workspace
from tasks.step import Run, step


@step(State.PUSHING)
def push(run: Run, build: Build) -> Build:
    """Learn nothing more: make sure that `digest` is true, and tag it."""
    assert build.image is not None
    image = ImageReference.parse(build.image)
    registry = workspace.registry(run.setup, image)
    found = registry.digest(image)
    if found != build.digest:
        raise TransientError(
            f"The registry has {found or 'nothing'} under {image}, where {build.digest} was pushed",
            "see whether something else pushes to this repository, or deletes from it",
        )
    if build.request.tags:
        registry.tag(image.with_digest(build.digest), build.request.tags)
    if build.graft_key is not None:
        pipeline.learn(build)
    return build
