"""Second step: the hash of everything that the image is made of, which becomes its tag."""

from imagemill import context
from imagemill.messages import Build, State
from tasks.input_records import note_inputs, use_inputs
from tasks.run import Run
from tasks.step import step
from tasks.workspace import Workspace


@step(State.HASHING, timeout="hash_timeout")
def hash_source(run: Run, work: Workspace) -> Build:
    """Learn `source_hash` and `image`; a source that is an image already is its own `image`."""
    if work.build.image is not None:
        return work.build
    source = work.source
    if source.image is not None:
        return work.build.knowing(image=str(source.image))
    destination = work.destination
    work = work.knowing(source=source.pinned(run))
    source_hash, warnings = _source_hash(run, work)
    return work.build.knowing(
        source_hash=source_hash,
        image=str(destination.with_tag(source_hash)),
        warnings=(*work.build.warnings, *warnings),
    )


def _source_hash(run: Run, work: Workspace) -> tuple[str, tuple[str, ...]]:
    """Return the hash, from memory if the source cannot have changed since it was hashed, on
    whichever worker; and, where it was read, what its author should know.
    """
    pinned = work.build.source
    if pinned is None:
        return _hashed(run, work)
    known, key = work.known_hashes, work.hash_key(pinned)
    # What a Dockerfile builds from can be checked only where it is read.
    if not work.permit.limits_images and (source_hash := known.find(key)):
        run.log(f"{pinned} was hashed before")
        use_inputs(work, source_hash)
        return source_hash, ()
    source_hash, warnings = _hashed(run, work)
    known.keep(key, source_hash)
    return source_hash, warnings


def _hashed(run: Run, work: Workspace) -> tuple[str, tuple[str, ...]]:
    with work.fetched(run) as folder:
        manifest = context.manifest(folder, work.dockerfile, run, work.memory(folder))
    dockerfile = manifest.dockerfile.content.decode(errors="replace")
    work.permit.check_dockerfile(dockerfile, work.build.request.build_args)
    for note in context.notes(manifest):
        run.log(note)
    source_hash = work.hash_of(manifest)
    note_inputs(work, manifest, source_hash)
    return source_hash, context.costs(manifest)
