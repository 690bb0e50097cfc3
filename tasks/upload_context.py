"""Fourth step: pack the context and put it where the builder finds it."""

from imagemill.context import Manifest
from imagemill.context.handover import Contexts
from imagemill.errors import UserError
from imagemill.messages import Build, State
from tasks.input_records import note_inputs
from tasks.run import Run
from tasks.step import step
from tasks.workspace import Workspace


@step(State.UPLOADING, timeout="upload_timeout", announced=True)
def upload_context(run: Run, work: Workspace) -> Build:
    """Learn `context`. What is stored already is not stored again."""
    contexts, build = work.contexts, work.build
    name = contexts.name(work.source_hash, build.id)
    if not contexts.exists(name):
        store(contexts, name, run, work)
    return build.knowing(context=name, uploads=build.uploads + 1)


def store(contexts: Contexts, name: str, run: Run, work: Workspace) -> None:
    """Store what was hashed; a source that has another hash by now is a `UserError`, and not
    stored.
    """

    def accept(manifest: Manifest) -> None:
        found = work.hash_of(manifest)
        if found != work.source_hash:
            work.forget_hash()
            raise UserError(
                f"The source {work.build.request.source} changed between being hashed and being packed",
                "build from a source that is at rest, or build again",
            )
        note_inputs(work, manifest, found)

    with work.fetched(run) as folder:
        contexts.add(name, folder, work.dockerfile, accept, run)
