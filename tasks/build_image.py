"""The entry: the only task that other services call. Its id is the build's id, its result the report."""

import time
from typing import Any

from celery import Task, shared_task

from imagemill.build import Build, BuildRequest
from imagemill.errors import ImagemillError, UserError
from tasks import pipeline
from tasks.report_failure import fail


@shared_task(bind=True, name="imagemill.build_image", throws=(ImagemillError,))
def build_image(self: Task[Any, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Build an image. `request` is a `BuildRequest` as JSON (docs/schema/build-request.json).

    The result is a `BuildReport` as JSON (docs/schema/build-report.json); a build that fails raises its error.
    """
    try:
        parsed = BuildRequest.parse(request)
    except UserError as error:
        fail(Build(id=self.request.id, request=BuildRequest(source="?"), started=time.time()), error)
        raise
    build = Build(id=self.request.id, request=parsed, started=time.time())
    raise self.replace(pipeline.start(build))
