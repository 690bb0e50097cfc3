"""What a build leaves behind is removed when it has ended: by whoever ends it, or by whoever finds
that it has.
"""

import logging
import time

from imagemill.errors import ImagemillError, TransientError
from tasks.settings import later
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

PAUSES = (0.5, 2.0)
"""Seconds after each try to remove a context whose store is away for a moment."""


def clean_up(work: Workspace) -> None:
    """Free the image's lock, wake who waits for it, or for this build as a part of theirs, and
    remove the context; may be done twice.

    A context that cannot be removed now is left: on this machine to `sweep`, elsewhere to the
    store's own life cycle.
    """
    if work.build.locked:
        work.lock.release()
        later().wake(str(work.image))
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
