"""Second step: the hash of everything that the image is made of, which becomes its tag."""

from collections.abc import Iterable

from imagemill import context
from imagemill.context import hashing
from imagemill.messages import Build, State
from tasks.input_records import note_inputs, use_inputs
from tasks.run import Run
from tasks.signals import cache_asked
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
    work, warnings = _hashed(run, work)
    return work.build.knowing(
        image=str(destination.with_tag(work.source_hash)),
        warnings=(*work.build.warnings, *run.warnings, *warnings),
    )


def _hashed(run: Run, work: Workspace) -> tuple[Workspace, tuple[str, ...]]:
    """Return what knows the hash, from memory if the source cannot have changed since it was
    hashed, on whichever worker; and, where it was read, what its author should know.
    """
    pinned = work.build.source
    if not pinned or work.permit.limits_images:
        # What a Dockerfile builds from can be checked only where it is read.
        return _read(run, work)
    if found := work.known_hashes.find(work.hash_key(pinned)):
        own_hash, *images = found.split()
        known = _with_bases(run, work, own_hash, images)
        if use_inputs(known, known.source_hash):
            cache_asked.send(sender=None, cache="hash", hit=True)
            run.log(f"{pinned} was hashed before")
            return known, ()
    cache_asked.send(sender=None, cache="hash", hit=False)
    return _read(run, work)


def _read(run: Run, work: Workspace) -> tuple[Workspace, tuple[str, ...]]:
    with work.fetched(run) as folder:
        manifest = context.manifest(folder, work.dockerfile, run, work.memory(folder))
    dockerfile = manifest.dockerfile.content.decode(errors="replace")
    work.permit.check_dockerfile(dockerfile, work.build.request.build_args)
    for note in context.notes(manifest):
        run.log(note)
    own_hash = work.own_hash_of(manifest)
    images = hashing.base_images(work.build.request, manifest)
    if pinned := work.build.source:
        work.known_hashes.keep(work.hash_key(pinned), " ".join((own_hash, *images)))
    work = _with_bases(run, work, own_hash, images)
    note_inputs(work, manifest, work.source_hash)
    return work, context.costs(manifest)


def _with_bases(run: Run, work: Workspace, own_hash: str, images: Iterable[str]) -> Workspace:
    """Return what knows the base images as they are at this time, and the hash over all."""
    bases = work.base_digests(images, run)
    return work.knowing(bases=bases, source_hash=hashing.with_bases(own_hash, bases))
