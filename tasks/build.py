"""Fifth step, on the worker pool of its builder: make the image and bring it into the registry.

The builder also pushes (Kaniko knows no other way, and docker's image lies in this worker's own
engine), so that one message, acknowledged last, covers both: a worker's death loses neither. See
docs/adr/0003-the-builder-pushes.md.
"""

from celery.canvas import Signature

from imagemill.errors import OperatorError
from imagemill.masking import masking
from imagemill.messages import Build, State
from imagemill.reference import ImageReference
from tasks import pipeline, workspace
from tasks.cleanup import discard
from tasks.step import Run, step

MOST_UPLOADS = 2


@step(State.BUILDING, timeout="build_timeout", announced=True)
def build(run: Run, build: Build) -> Build | Signature:
    """Learn `digest`, under the lock on the image."""
    if build.digest is not None:
        return build
    lock = workspace.lock(run.setup, build)
    if not lock.acquire():
        return pipeline.wait(build, run.setup.wait_interval)
    with run.holding(lock):
        return _build(run, build)


def _build(run: Run, build: Build) -> Build | Signature:
    assert build.image is not None
    image = ImageReference.parse(build.image)
    registry = workspace.registry(run.setup, image)
    # Somebody may have pushed it since it was looked for: another holder of the lock, or this
    # message's last worker.
    existing = None if build.request.force else registry.digest(image)
    if existing is not None:
        discard(run.setup, build)
        return build.knowing(existing_digest=existing, digest=existing)
    if not workspace.context_is_there(run.setup, build):
        return _upload_again(run, build)
    registry.prepare(image)
    builder, inputs = workspace.builder(run.setup, build), workspace.inputs(run.setup, build)
    context = workspace.stored_context(run.setup, build)
    with masking(run, inputs.secrets.values()) as progress:
        digest = builder.build(inputs, context, registry, progress)
    return build.knowing(digest=digest, warnings=(*build.warnings, *run.warnings))


def _upload_again(run: Run, build: Build) -> Signature:
    """The context is gone: somebody has removed it, or it is on another node."""
    if build.uploads >= MOST_UPLOADS:
        raise _not_there(run, build)
    return pipeline.pack_and_build(build.knowing(context=None), workspace.builder_type(build))


def _not_there(run: Run, build: Build) -> OperatorError:
    assert build.config is not None
    store = build.config.builder.build_context_store
    if store is not None and not store.startswith("file:"):
        return OperatorError(
            f"The context {build.context} is gone from {store}, time and again",
            "see who deletes from builder.build-context-store: a life cycle rule of less than a day, or a person",
        )
    return OperatorError(
        f"The context {build.context} is not to be found on the worker that builds, {run.worker}",
        "where workers do not share a disk, set builder.build-context-store to an object store",
    )
