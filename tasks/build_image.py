"""The entry: the only task that other services call. Its id is the build's id, its result the
report.
"""

import time
from typing import Any

from celery import shared_task

from imagemill.errors import ImagemillError, UserError
from imagemill.grammar import BUILD_ID
from imagemill.messages import Build, BuildRequest
from imagemill.names import BUILD_IMAGE
from tasks import pipeline
from tasks.replaceable import Replaceable
from tasks.report_failure import fail


class _Entry(Replaceable):
    """Called by others, who wait for the result of its id."""

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Leave to the worker, as callers by name do, whether the result is stored: the caller
        waits for the report.
        """
        options.setdefault("ignore_result", None)
        return super().apply_async(*args, **options)


@shared_task(
    bind=True,
    base=_Entry,
    name=BUILD_IMAGE,
    throws=(ImagemillError,),
    ignore_result=True,
    Request="tasks.events:EntryRequest",
)
def build_image(self: _Entry, request: dict[str, Any]) -> None:
    """Build an image. `request` is a `BuildRequest` as JSON (docs/schema/build-request.json).

    The result is a `BuildReport` as JSON (docs/schema/build-report.json); a build that fails raises
    its error.
    """
    BUILD_ID.checked(str(self.request.id))
    try:
        parsed = BuildRequest.parse(request)
    except UserError as error:
        refused = Build(id=self.request.id, request=BuildRequest(source="?"), started=time.time())
        fail(refused, error, self.request.hostname)
        raise
    build = Build(id=self.request.id, request=parsed, started=time.time())
    self.give_way(pipeline.start(build))
