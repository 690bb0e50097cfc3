"""For whoever has a source that the workers cannot read: where it is to be put."""

from typing import Any

from celery import Task, shared_task

from imagemill.config.model import KanikoBuilder
from imagemill.errors import ImagemillError
from imagemill.messages import UploadPlan
from imagemill.names import PLAN_UPLOAD
from imagemill.policy import Permit
from tasks.requests import parsed_request
from tasks.settings import setup
from tasks.workspace import launch_config, policies_for


@shared_task(
    bind=True,
    name=PLAN_UPLOAD,
    base=Task,
    throws=(ImagemillError,),
    acks_late=False,  # nobody waits for long
    Request="tasks.events:DiscreetRequest",
)
def plan_upload(
    self: Task[Any, Any],
    request: dict[str, Any] | str,
    tenant: str | None = None,
    issued: str | None = None,
    signature: str | None = None,
) -> dict[str, Any]:
    """Return what the config of the request says, if whoever asks may have it built."""
    asked, tenant = parsed_request(self.request, request, tenant, issued, signature)
    Permit.of(policies_for(setup(), asked), tenant).check_request(asked)
    config = launch_config(setup(), asked).config
    builder = config.builder
    if isinstance(builder, KanikoBuilder):  # people put secrets into its environment variables
        builder = builder.model_copy(update={"kaniko_config": {}})
    return UploadPlan(
        builder=builder.model_dump(mode="json", exclude_none=True),
        region=config.environment.region,
    ).dump()
