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
    name = contexts.name(build.source_hash, build.id)
    if not contexts.exists(name):
        store(contexts, name, run, build)
    return build.knowing(context=name, uploads=build.uploads + 1)


def store(contexts: Contexts, name: str, run: Run, build: Build) -> None:
    """Store what was hashed; a source that has another hash by now is a `UserError`, and not
    stored.
    """

    with workspace.fetched(run.setup, build, run) as folder:
        contexts.add(
            name,
            folder,
            workspace.dockerfile(build),
            lambda manifest: accept(run.setup, build, manifest),
            run,
        )
