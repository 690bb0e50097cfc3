"""Replaces a running task by others without the exception that `Task.replace` ends with.

See docs/adr/0010-tasks-are-replaced-without-an-exception.md.
"""

from contextlib import suppress
from typing import Any

from celery import Task
from celery.canvas import Signature
from celery.exceptions import Ignore


class Replaceable(Task[Any, Any]):
    """A task that may give way to others, and whose own result is nobody's: the build's result is
    the report.
    """

    def give_way(self, successor: Signature) -> None:
        """Let `successor` have this task's id, and all that was to come after it. The task is to
        return next.
        """
        with suppress(Ignore):
            self.replace(successor)
        if self.request.ignore_result is False:
            # Asked for by the caller, Celery would store what this task returns as the build's
            # result.
            raise Ignore("Replaced")
        # What Celery does when a task has returned is the successor's to do.
        self.request.callbacks = self.request.chain = self.request.chord = None
