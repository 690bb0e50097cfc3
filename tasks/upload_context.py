"""Fourth step: pack the context and put it where the builder finds it."""

from imagemill.build import Build, State
from imagemill.context import Bounds, Manifest
from imagemill.contexts import Contexts
from imagemill.errors import UserError
from tasks import resolve
from tasks.noting import note_inputs
from tasks.step import Run, step


@step(State.UPLOADING, timeout="upload_timeout", announced=True)
def upload_context(run: Run, build: Build) -> Build:
    """Learn `context`. What is stored already is not stored again."""
    contexts = resolve.contexts(run.setup, build)
    assert build.source_hash is not None
    name = contexts.name(build.source_hash, build.id)
    if resolve.source(run.setup, build).packed:
        verify(contexts, name, run, build)
    elif not contexts.exists(name):
        store(contexts, name, run, build)
    return build.knowing(context=name, uploads=build.uploads + 1)


def store(contexts: Contexts, name: str, run: Run, build: Build) -> None:
    """Store what was hashed; a source that has another hash by now is a `UserError`, and not stored."""

    def accept(manifest: Manifest) -> None:
        if resolve.source_hash(build, manifest) != build.source_hash:
            raise UserError(
                f"The source {build.request.source} changed between being hashed and being packed",
                "build from a source that is at rest, or build again",
            )

    with resolve.fetched(run.setup, build, run) as folder:
        contexts.add(name, folder, resolve.dockerfile(build), accept, run)


def verify(contexts: Contexts, name: str, run: Run, build: Build) -> None:
    """See that what somebody else has stored is there, and is what its hash says: an image is about to get its name."""
    bounds = Bounds(run.setup.sources.max_bytes, run.setup.sources.max_files)
    try:
        manifest = contexts.manifest(name, build.request.dockerfile, bounds, run)
    except FileNotFoundError:
        raise UserError(
            f"The context {name} is not in the context store (any more)", "build again: it is uploaded anew"
        ) from None
    if build.source_hash is None or resolve.source_hash(build, manifest) != build.source_hash:
        raise UserError(
            f"The context {name} is not what its hash says, or other options were given when it was hashed",
            "let `imagemill build` upload the source",
        )
    note_inputs(run.setup, build, manifest, build.source_hash)
