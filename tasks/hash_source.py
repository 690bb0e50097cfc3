"""Second step: the hash of everything that the image is made of, which becomes its tag."""

from imagemill import context
from imagemill.messages import Build, State
from tasks import workspace
from tasks.input_records import note_inputs, use_inputs
from tasks.step import Run, step


@step(State.HASHING, timeout="hash_timeout")
def hash_source(run: Run, build: Build) -> Build:
    """Learn `source_hash` and `image`; a source that is an image already is its own `image`."""
    if build.image is not None:
        return build
    source = workspace.source(run.setup, build)
    if source.image is not None:
        return build.knowing(image=str(source.image))
    destination = workspace.destination(build)
    build = build.knowing(source=source.pinned(run))
    source_hash, warnings = _source_hash(run, build)
    return build.knowing(
        source_hash=source_hash,
        image=str(destination.with_tag(source_hash)),
        warnings=(*build.warnings, *warnings),
    )


def _source_hash(run: Run, build: Build) -> tuple[str, tuple[str, ...]]:
    """The hash, from memory if the source cannot have changed since it was hashed, on whichever
    worker; and, where it was read, what its author should know.
    """
    if build.source is None:
        return _hashed(run, build)
    known, key = workspace.known_hashes(run.setup), workspace.hash_key(build, build.source)
    if source_hash := known.find(key):
        run.log(f"{build.source} was hashed before")
        use_inputs(run.setup, source_hash)
        return source_hash, ()
    source_hash, warnings = _hashed(run, build)
    known.keep(key, source_hash)
    return source_hash, warnings


def _hashed(run: Run, build: Build) -> tuple[str, tuple[str, ...]]:
    with workspace.fetched(run.setup, build, run) as folder:
        memory = workspace.memory(run.setup, folder)
        manifest = context.manifest(folder, workspace.dockerfile(build), run, memory)
    for note in context.notes(manifest):
        run.log(note)
    source_hash = workspace.source_hash(build, manifest)
    note_inputs(run.setup, build, manifest, source_hash)
    return source_hash, context.costs(manifest)
