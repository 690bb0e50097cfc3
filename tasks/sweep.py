"""Run by beat: removes what workers that died have left behind in this worker's folders."""

import logging
import time

from celery import shared_task

from imagemill.context.index import remove_unused
from imagemill.files import folders
from imagemill.names import SWEEP
from imagemill.ports import Quiet
from tasks import workspace
from tasks.settings import setup

log = logging.getLogger(__name__)

SPARED = 3.0
"""What is younger than this many times the build timeout may still be in use."""


@shared_task(name=SWEEP, ignore_result=True)
def sweep() -> None:
    """Remove contexts and scratch folders that no build can be using any more."""
    here = setup()
    old = time.time() - SPARED * here.build_timeout
    workspace.mirrors(here).fit(claimed_before=old)
    remove_unused(workspace.indexes(here))
    for path in (here.state_dir / "scratch").glob("*"):
        if path.lstat().st_mtime < old:
            log.info("Removing %s, left behind by a worker that died", path)
            if path.is_dir() and not path.is_symlink():
                folders.remove(path, Quiet())
            else:
                path.unlink(missing_ok=True)
