"""Processes that run a function of a test, forked from one that has imported what most of them use."""

import multiprocessing
import os
import sys
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

import pytest

_IMPORTED = ["pytest", "graft_trial", "benchmarks.proxy", "imagemill.sources.cache"]


@cache
def forking() -> ForkServerContext:
    """Return the `multiprocessing` of such processes.

    Not forked from here: a lock that a thread of ours holds would stay held in it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    # Up to Python 3.12.7 it looks for them on the path that it was started with, and says nothing
    # of those that it does not find: https://github.com/python/cpython/issues/117378
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return context
