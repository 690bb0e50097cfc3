"""Second step: the hash of everything that the image is made of, which becomes its tag."""

from collections.abc import Mapping

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
    work, *parts = _hashed(run, work.knowing(source=source.pinned(run)))
    return work.build.knowing(
        image=str(destination.with_tag(work.source_hash)),
        platforms={part.build.request.platforms[0]: part.source_hash for part in parts},
        warnings=(*work.build.warnings, *run.warnings),
    )


def _hashed(run: Run, work: Workspace) -> list[Workspace]:
    """Return what knows the hash, and for several platforms what knows the hash of each: from
    memory if the source cannot have changed since it was hashed, on whichever worker.
    """
    platforms = work.build.request.platforms
    works = [work, *(map(work.for_platform, platforms) if len(platforms) > 1 else ())]
    pinned = work.build.source
    if not pinned or work.permit.limits_images:
        # What a Dockerfile builds from can be checked only where it is read.
        return _read(run, works)
    texts = [work.known_hashes.find(each.hash_key(pinned)) for each in works]
    found = [text.split() for text in texts if text]
    if len(found) == len(works):
        bases = work.base_digests(found[0][1:], run)
        known = [
            _with_bases(each, own_hash, bases)
            for each, (own_hash, *_) in zip(works, found, strict=True)
        ]
        if all(use_inputs(each, each.source_hash) for each in known):
            cache_asked.send(sender=None, cache="hash", hit=True)
            run.log(f"{pinned} was hashed before")
            return known
    cache_asked.send(sender=None, cache="hash", hit=False)
    return _read(run, works)


def _read(run: Run, works: list[Workspace]) -> list[Workspace]:
    """Hash the source by its content, and tell its author what is to be known of it."""
    work = works[0]
    with work.fetched(run) as folder:
        manifest = context.manifest(folder, work.dockerfile, run, work.memory(folder))
    dockerfile = manifest.dockerfile.content.decode(errors="replace")
    work.permit.check_dockerfile(dockerfile, work.build.request.build_args)
    for note in context.notes(manifest):
        run.log(note)
    images = hashing.base_images(work.build.request, manifest)
    bases = work.base_digests(images, run)
    known = []
    for each in works:
        own_hash = each.own_hash_of(manifest)
        if pinned := work.build.source:
            work.known_hashes.keep(each.hash_key(pinned), " ".join((own_hash, *images)))
        known.append(_with_bases(each, own_hash, bases))
        note_inputs(known[-1], manifest, known[-1].source_hash)
    run.warnings += context.costs(manifest)
    return known


def _with_bases(work: Workspace, own_hash: str, bases: Mapping[str, str]) -> Workspace:
    """Return what knows the base images as they are at this time, and the hash over all."""
    return work.knowing(bases=bases, source_hash=hashing.with_bases(own_hash, bases))
