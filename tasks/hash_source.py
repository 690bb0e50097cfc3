"""Second step: the hash of everything that the image is made of, which becomes its tag."""

from imagemill import context
from imagemill.build import Build, State
from tasks import resolve
from tasks.step import Run, step


@step(State.HASHING, timeout="hash_timeout")
def hash_source(run: Run, build: Build) -> Build:
    """Learn `source_hash` and `image`; a source that is an image already is its own `image`."""
    if build.image is not None:
        return build
    source = resolve.source(run.setup, build.request)
    if source.image is not None:
        return build.knowing(image=str(source.image))
    destination = resolve.destination(build)
    with resolve.scratch(run.setup) as scratch:
        manifest = context.manifest(source.fetch(scratch, run), build.request.dockerfile, run)
    source_hash = resolve.source_hash(build, manifest)
    return build.knowing(source_hash=source_hash, image=str(destination.with_tag(source_hash)))
