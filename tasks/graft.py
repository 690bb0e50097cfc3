"""Between the check and the build: where code alone has changed, the image is made here, without a
builder (`imagemill.builders.graft`).
"""

import json
import logging
import math
import time

from celery import shared_task

from imagemill import context
from imagemill.builders.graft import Refusal, grafting
from imagemill.builders.graft.grafting import Graft, GraftPlace, Question
from imagemill.builders.graft.source import SourceFiles
from imagemill.context.hashing import Inputs
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    ServiceUnreachable,
    TransientError,
)
from imagemill.messages import Build, State
from imagemill.ports import Quiet
from imagemill.state.grafts import Earlier
from tasks import pipeline
from tasks.cleanup import taken_over
from tasks.input_records import accept
from tasks.pipeline import LAYERS, Next
from tasks.run import Run
from tasks.settings import later, seal, setup
from tasks.signals import cache_asked
from tasks.step import alone, step
from tasks.workspace import Workspace, graft_place

log = logging.getLogger(__name__)


MOST_WAITED_FOR = 2
"""Builds that one waits for, each of which was to make what comes before its code: those after them
may fail, too.
"""

PART = 0.5
"""Of a build's time in which it waits for others."""


@step(State.CHECKING, timeout="upload_timeout")
@alone
def graft(run: Run, work: Workspace) -> Build | Next:
    """Learn `digest` and `grafted`; or go on with the builder's steps, with `not_grafted`, or with a
    wait for another build that makes what comes before the code.
    """
    done = _graft(run, work)
    if isinstance(done, Build):
        cache_asked.send(sender=None, cache="image", hit=done.grafted)
    if isinstance(done, Next) or done.grafted:
        return done
    run.log(f"The builder builds: {done.not_grafted}")
    return Next("upload_context", done)


def _graft(run: Run, work: Workspace) -> Build | Next:
    place = graft_place(run.setup, work.build.tenant)
    if work.build.graft_key is not None and isinstance(wait := _earlier(run, work, place), Next):
        return wait
    with work.fetched(run) as folder:
        manifest = context.manifest(
            folder, work.dockerfile, run, work.memory(folder), work.is_as_hashed
        )
        accept(work, manifest)
        try:
            asked = _question(work, place, manifest)
            work = work.knowing(graft_key=asked.key, commands=asked.recipe.commands)
            earlier = _earlier(run, work, place)
            if isinstance(earlier, Next):
                return earlier
            if earlier is None:
                raise place.none_known(asked.key)
            with SourceFiles(folder, manifest, run) as files:
                digest = Graft(place, work.open_inputs, asked, run).make(
                    earlier,
                    manifest,
                    files.chunks,
                    work.build.started,
                    lambda: run.enter(State.PUSHING),
                )
            run.log(
                f"Made of {earlier.image}, from which the code alone differs, without a builder"
            )
            return work.build.knowing(digest=digest, grafted=True, graft_key=None, commands=())
        except Refusal as refusal:
            return work.build.knowing(not_grafted=refusal.reason)
        except ServiceUnreachable:
            raise
        except (OperatorError, TransientError) as error:  # what the builder may do, or say better
            return work.build.knowing(not_grafted=error.message)


def _question(work: Workspace, place: GraftPlace, manifest: context.Manifest) -> Question:
    build = work.build
    given = Inputs.of(build.request, work.config.builder)
    return grafting.question(
        manifest, work.open_inputs, given, work.builder_type, place, build.bases
    )


def _earlier(run: Run, work: Workspace, place: GraftPlace) -> Earlier | Next | None:
    """Return the image to start from, or the wait for a build that makes one; None if this build is
    to make the first, alone or since it has waited for long enough.
    """
    build, lock = work.build, work.dependencies
    assert build.graft_key is not None
    assert build.deadline is not None
    if earlier := place.known.find_image(build.graft_key):
        return earlier
    if lock.acquire() or (not lock.is_read and taken_over(lock)):
        lock.keep(build.deadline - time.time())
        # The one before may have come to its end in between.
        earlier = place.known.find_image(build.graft_key)
        if earlier is not None:
            lock.release()
        return earlier
    holder = lock.holder()
    others = build.waited_for if holder in build.waited_for else (*build.waited_for, holder)
    until = build.started + PART * (build.deadline - build.started)
    if len(others) > MOST_WAITED_FOR or time.time() > until:
        return None
    if others != build.waited_for:
        run.log(f"Waiting for build {holder}, which installs the same dependencies")
    known = build.knowing(waited_for=others)
    return Next("graft", known, run.setup.wait_interval, lock.name)


@shared_task(name="imagemill.read_layers", throws=(ImagemillError,), ignore_result=True)
def read_layers(build_id: str, sealed: str) -> None:
    """Read what is in the layers of an image that a builder has made, and keep the image in mind
    for builds that change its code. Those that wait for that are woken, whatever came of it.

    What a registry does not let us know is told by the next build (`grafting.note`).
    A message is handed out again while it takes long: that looks again later, since the one at work
    may be killed.
    """
    text = seal().open(LAYERS, build_id, sealed)
    build = Build.load(json.loads(text))
    work = Workspace(setup(), build)
    reader, lock = work.reader_lock(), work.dependencies_read
    if not reader.acquire():
        log.info("The layers of %s are being read already", work.image)
        return pipeline.learn(build, work.setup.lock_lease)
    lock.acquire()
    try:
        with reader.renewed(afterwards=0), lock.renewed(afterwards=0):
            note(work)
    except (OperatorError, TransientError) as error:
        log.warning("The next change of code needs a builder, too: %s", error.message)
    finally:
        reader.release()
        lock.release()
        later().wake(lock.name)


def note(work: Workspace, most: float = math.inf) -> None:
    """Keep the image in mind, once what is in its layers is known, of which `most` bytes are read."""
    build, record = work.build, work.input_records.find(work.source_hash)
    if record is None or build.graft_key is None:
        return
    image, labels = work.image.with_digest(build.digest), tuple(work.open_inputs.labels)
    made = Earlier(image.pinned, labels, record, build.commands)
    try:
        grafting.note(made, build.graft_key, graft_place(work.setup, build.tenant), Quiet(), most)
    except Refusal as refusal:
        log.info("%s is no image to start from: %s", image, refusal.reason)
