"""Between the check and the build: where code alone has changed, the image is made here, without a
builder (`imagemill.builders.graft`).
"""

import logging

from celery import shared_task
from celery.canvas import Signature

from imagemill import context
from imagemill.builders.graft import Refusal, grafting
from imagemill.builders.graft.grafting import Graft, Place
from imagemill.builders.graft.source import SourceFiles
from imagemill.errors import ImagemillError, OperatorError
from imagemill.messages import Build, State
from imagemill.ports import Quiet
from imagemill.reference import ImageReference
from tasks import pipeline, workspace
from tasks.input_records import accept
from tasks.settings import setup
from tasks.step import Run, step

log = logging.getLogger(__name__)


@step(State.CHECKING, timeout="upload_timeout")
def graft(run: Run, build: Build) -> Build | Signature:
    """Learn `digest` and `grafted`; or give way to the builder's steps, with `not_grafted`."""
    if build.digest is not None:
        return build
    lock = workspace.lock(run.setup, build)
    if not lock.acquire():
        return pipeline.wait(build, run.setup.wait_interval)
    with run.holding(lock):
        done = _graft(run, build)
    if done.grafted:
        return done
    run.log(f"The builder builds: {done.not_grafted}")
    return pipeline.pack_and_build(done, workspace.builder_type(build))


def _graft(run: Run, build: Build) -> Build:
    place = workspace.graft_place(run.setup)
    with workspace.fetched(run.setup, build, run) as folder:
        memory = workspace.memory(run.setup, folder)
        manifest = context.manifest(folder, workspace.dockerfile(build), run, memory)
        accept(run.setup, build, manifest)
        try:
            with SourceFiles(folder, manifest, run) as files:
                return _made(run, build, place, manifest, files)
        except Refusal as refusal:
            return build.knowing(not_grafted=refusal.reason)


def _made(
    run: Run, build: Build, place: Place, manifest: context.Manifest, files: SourceFiles
) -> Build:
    inputs, builder = workspace.open_inputs(build), workspace.builder_type(build)
    asked = grafting.question(manifest, inputs, build.request.secrets, builder, place)
    build = build.knowing(graft_key=asked.key)
    try:
        earlier = place.known.find_image(asked.key)
        if earlier is None:
            raise Refusal("no image is known that differs from this one in its code alone")
        digest = Graft(place, inputs, asked, run).make(
            earlier,
            manifest,
            files.chunks,
            build.started,
            lambda: run.enter(State.PUSHING),
        )
    except Refusal as refusal:
        return build.knowing(not_grafted=refusal.reason)
    except OperatorError as error:  # what the builder may do, or say better
        return build.knowing(not_grafted=error.message)
    run.log(f"Made of {earlier.image}, from which the code alone differs, without a builder")
    return build.knowing(digest=digest, grafted=True, graft_key=None)


@shared_task(name="imagemill.read_layers", throws=(ImagemillError,), ignore_result=True)
def read_layers(message: dict[str, object]) -> None:
    """Read what is in the layers of an image that a builder has made, and keep the image in mind
    for builds that change its code.
    """
    build, place = Build.load(message), workspace.graft_place(setup())
    assert build.image is not None
    assert build.source_hash is not None
    assert build.graft_key is not None
    image = ImageReference.parse(build.image).with_digest(build.digest)
    labels = workspace.open_inputs(build).labels
    record = workspace.input_records(setup()).find(build.source_hash)
    if record is None:
        return
    try:
        grafting.note(image, record, labels, build.graft_key, place, Quiet())
    except Refusal as refusal:
        log.info("%s is no image to start from: %s", image, refusal.reason)
