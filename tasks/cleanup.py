"""What a build leaves behind is removed when it has ended: by whoever ends it, or by whoever finds
that it has.
"""

import logging
import time

from imagemill.errors import ImagemillError, TransientError
from imagemill.state.lock import ImageLock
from tasks.settings import later, records
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

PAUSES = (0.5, 2.0)
"""Seconds after each try to remove a context whose store is away for a moment."""


def taken_over(lock: ImageLock) -> bool:
    """Take the lock of a build that is over and could not free it: its record was lost, or was not
    what a worker wrote.
    """
    holder = lock.holder()
    if not records().over(holder):
        return False
    lock.free(holder)
    return lock.acquire()


def clean_up(work: Workspace) -> None:
    """Free the build's locks, wake who waits for them, or for this build as a part of theirs, and
    remove the context; may be done twice.

    A context that cannot be removed now is left: on this machine to `sweep`, elsewhere to the
    store's own life cycle.
    """
    if work.build.locked:
        work.lock.release()
        later().wake(str(work.image))
    if work.build.graft_key is not None and work.dependencies.release():
        later().wake(work.dependencies.name)
    if work.build.part_of:
        later().wake(work.build.part_of)
    context = work.build.context
    if context is None:
        return
    try:
        _delete(work, context)
    except (ImagemillError, OSError) as error:
        log.warning("The context %s stays behind: %s", context, error)


def _delete(work: Workspace, context: str) -> None:
    contexts = work.contexts
    for pause in PAUSES:
        try:
            return contexts.delete(context)
        except TransientError as error:
            log.info(
                "The context %s could not be removed: %s; trying again in %.1f s",
                context,
                error,
                pause,
            )
            time.sleep(pause)
    contexts.delete(context)


def discard(work: Workspace) -> None:
    """End what a builder may have left behind elsewhere, if the worker that began the build has
    died.
    """
    try:
        work.builder.discard(work.build.id)
    except ImagemillError as error:
        log.warning("What may be left of the build could not be removed: %s", error)
