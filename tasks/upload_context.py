"""Fourth step: pack the context and put it where the builder finds it."""

from imagemill import context
from imagemill.build import Build, State
from imagemill.errors import UserError
from imagemill.ports import ContextStore
from tasks import resolve
from tasks.step import Run, step


@step(State.UPLOADING, timeout="upload_timeout")
def upload_context(run: Run, build: Build) -> Build:
    """Learn `context`. What is stored under the hash already is not packed again."""
    name = f"{build.source_hash}.tar.gz"
    store = resolve.context_store(run.setup, build)
    if not store.exists(name):
        pack_into(store, name, run, build)
    return build.knowing(context=name, uploads=build.uploads + 1)


def pack_into(store: ContextStore, name: str, run: Run, build: Build) -> None:
    """Pack what was hashed; a source that has another hash by now is a `UserError`, and not stored."""
    source = resolve.source(run.setup, build.request)
    with resolve.scratch(run.setup) as scratch:
        root = source.fetch(scratch, run)
        with store.create(name) as stream:
            manifest = context.pack(root, build.request.dockerfile, stream, run)
            if resolve.source_hash(build, manifest) != build.source_hash:
                raise UserError(
                    f"The source {build.request.source} changed between being hashed and being packed",
                    "build from a source that is at rest, or build again",
                )
