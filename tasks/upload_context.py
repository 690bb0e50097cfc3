"""Fourth step: pack the context and put it where the builder finds it."""

from imagemill.context.handover import Contexts
from imagemill.messages import Build, State
from tasks import workspace
from tasks.input_records import accept
from tasks.step import Run, step


@step(State.UPLOADING, timeout="upload_timeout", announced=True)
def upload_context(run: Run, build: Build) -> Build:
    """Learn `context`. What is stored already is not stored again."""
    contexts = workspace.contexts(run.setup, build)
    assert build.source_hash is not None
    name = contexts.find(build.source_hash, build.id) or store(contexts, run, build)
    return build.knowing(context=name, uploads=build.uploads + 1)


def store(contexts: Contexts, run: Run, build: Build) -> str:
    """Store what was hashed, and return its name; a source that has another hash by now is a
    `UserError`, and not stored.
    """
    return contexts.add(
        workspace.origin_of(run.setup, build, run),
        lambda manifest: accept(run.setup, build, manifest),
        run,
    )
