"""Between the check and the build: where code alone has changed, the image is made here, without a
builder (`imagemill.builders.graft`).
"""

import json
import logging

from celery import shared_task

from imagemill import context
from imagemill.builders.graft import Refusal, grafting
from imagemill.builders.graft.grafting import Graft, GraftPlace
from imagemill.builders.graft.source import SourceFiles
from imagemill.context.hashing import Inputs
from imagemill.errors import ImagemillError, OperatorError
from imagemill.messages import Build, State
from imagemill.ports import Quiet
from tasks.input_records import accept
from tasks.pipeline import LAYERS, Next
from tasks.run import Run
from tasks.settings import seal, setup
from tasks.signals import cache_asked
from tasks.step import step
from tasks.workspace import Workspace, graft_place

log = logging.getLogger(__name__)


@step(State.CHECKING, timeout="upload_timeout")
def graft(run: Run, work: Workspace) -> Build | Next:
    """Learn `digest` and `grafted`; or go on with the builder's steps, with `not_grafted`."""
    if work.build.digest is not None:
        return work.build
    lock = work.lock
    if not lock.acquire():
        waiting = work.build.knowing(waited=True)
        return Next("check_registry", waiting, run.setup.wait_interval, str(work.image))
    with run.holding(lock):
        done = _graft(run, work)
    cache_asked.send(sender=None, cache="image", hit=done.grafted)
    if done.grafted:
        return done
    run.log(f"The builder builds: {done.not_grafted}")
    return Next("upload_context", done)


def _graft(run: Run, work: Workspace) -> Build:
    place = graft_place(run.setup)
    with work.fetched(run) as folder:
        manifest = context.manifest(folder, work.dockerfile, run, work.memory(folder))
        accept(work, manifest)
        try:
            with SourceFiles(folder, manifest, run) as files:
                return _made(run, work, place, manifest, files)
        except Refusal as refusal:
            return work.build.knowing(not_grafted=refusal.reason)


def _made(
    run: Run, work: Workspace, place: GraftPlace, manifest: context.Manifest, files: SourceFiles
) -> Build:
    build, inputs, builder = work.build, work.open_inputs, work.builder_type
    given = Inputs.of(build.request, work.config.builder)
    asked = grafting.question(manifest, inputs, given, builder, place, build.tenant)
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
def read_layers(build_id: str, sealed: str) -> None:
    """Read what is in the layers of an image that a builder has made, and keep the image in mind
    for builds that change its code.
    """
    text = seal().open(LAYERS, build_id, sealed)
    build, place = Build.load(json.loads(text)), graft_place(setup())
    work = Workspace(setup(), build)
    record = work.input_records.find(work.source_hash)
    if record is None or build.graft_key is None:
        return
    image, labels = work.image.with_digest(build.digest), work.open_inputs.labels
    try:
        grafting.note(image, record, labels, build.graft_key, place, Quiet())
    except Refusal as refusal:
        log.info("%s is no image to start from: %s", image, refusal.reason)
