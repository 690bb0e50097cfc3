"""Fourth step: pack the context and put it where the builder finds it."""

from imagemill.context import Manifest
from imagemill.context.handover import Contexts
from imagemill.messages import Build, State
from tasks.input_records import accept
from tasks.run import Run
from tasks.signals import context_stored
from tasks.step import step
from tasks.workspace import Workspace


@step(State.UPLOADING, timeout="upload_timeout", announced=True)
def upload_context(run: Run, work: Workspace) -> Build:
    """Learn `context`. What is stored already is not stored again."""
    contexts = work.contexts
    name = contexts.find(work.source_hash, work.build.id) or store(contexts, run, work)
    return work.build.knowing(context=name, uploads=work.build.uploads + 1)


def store(contexts: Contexts, run: Run, work: Workspace) -> str:
    """Store what was hashed, and return its name; a source that has another hash by now is a
    `UserError`, and not stored.
    """

    def accepted(manifest: Manifest) -> None:
        accept(work, manifest)
        context_stored.send(sender=None, size=manifest.size)

    return contexts.add(work.origin(run), accepted, run)
