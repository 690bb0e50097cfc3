"""For whoever has a source that the workers cannot read: where it is to be put."""

from typing import Any

from celery import Task, shared_task

from imagemill.config.model import KanikoBuilder
from imagemill.errors import ImagemillError
from imagemill.messages import BuildRequest, UploadPlan
from imagemill.names import PLAN_UPLOAD
from tasks.settings import setup
from tasks.workspace import launch_config


@shared_task(
    name=PLAN_UPLOAD,
    base=Task,
    throws=(ImagemillError,),
    acks_late=False,  # nobody waits for long
    Request="tasks.events:DiscreetRequest",
)
def plan_upload(request: dict[str, Any]) -> dict[str, Any]:
    """What the config of the request says."""
    config = launch_config(setup(), BuildRequest.parse(request)).config
    builder = config.builder
    if isinstance(builder, KanikoBuilder):  # people put secrets into its environment variables
        builder = builder.model_copy(update={"kaniko_config": {}})
    return UploadPlan(builder=builder, region=config.environment.region).dump()
