"""Fifth step, on the worker pool of its builder: make the image and bring it into the registry.

The builder also pushes (Kaniko knows no other way, and docker's image lies in this worker's own
engine), so that one message, acknowledged last, covers both: a worker's death loses neither. See
docs/adr/0003-the-builder-pushes.md.
"""

from dataclasses import replace

from imagemill.errors import OperatorError
from imagemill.masking import masking
from imagemill.messages import Build, State
from tasks.cleanup import discard
from tasks.pipeline import Next
from tasks.run import Run
from tasks.step import alone, step
from tasks.workspace import Workspace

MOST_UPLOADS = 2


@step(State.BUILDING, timeout="build_timeout", announced=True)
@alone
def build(run: Run, work: Workspace) -> Build | Next:
    """Learn `digest`."""
    build, registry = work.build, work.registry
    # Somebody may have pushed it since it was looked for: another holder of the lock, or the worker
    # that had this step before.
    existing = None if build.request.anew else registry.digest(work.image)
    if existing is not None:
        discard(work)
        return build.knowing(existing_digest=existing, digest=existing)
    if not work.context_is_there:
        # Somebody has removed it, or it is on another node.
        if build.uploads >= MOST_UPLOADS:
            raise _not_there(run, work)
        return Next("upload_context", build.knowing(context=None))
    registry.prepare(work.image)
    inputs = replace(work.inputs, collector=run.setup.otlp_endpoint, traceparent=run.traceparent)
    with masking(run, inputs.secrets.values()) as progress:
        digest = work.builder.build(inputs, work.stored_context, registry, progress)
    return build.knowing(digest=digest, warnings=(*build.warnings, *run.warnings))


def _not_there(run: Run, work: Workspace) -> OperatorError:
    store = work.config.builder.build_context_store
    if store is not None and not store.startswith("file:"):
        return OperatorError(
            f"The context {work.build.context} is gone from {store}, time and again",
            "see who deletes from builder.build-context-store: a life cycle rule of less than a day, or a person",
        )
    return OperatorError(
        f"The context {work.build.context} is not to be found on the worker that builds, {run.worker}",
        "where workers do not share a disk, set builder.build-context-store to an object store",
    )
