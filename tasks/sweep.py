"""Run by beat: removes what workers that died have left behind in this worker's folders."""

import logging
import time

from celery import shared_task

from imagemill.files import folders
from imagemill.names import SWEEP
from imagemill.ports import Quiet
from tasks.settings import setup

log = logging.getLogger(__name__)

SPARED = 3.0
"""What is younger than this many times the build timeout may still be in use."""


@shared_task(name=SWEEP, ignore_result=True)
def sweep() -> None:
    """Remove packed contexts and scratch folders that no build can be using any more."""
    here = setup()
    old = time.time() - SPARED * here.build_timeout
    for folder in ("contexts", "scratch"):
        for path in (here.state_dir / folder).glob("*"):
            if path.lstat().st_mtime < old:
                log.info("Removing %s, left behind by a worker that died", path)
                folders.remove(
                    path, Quiet()
                ) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
