"""For whoever has a source that the workers cannot read: where its packed context is to be put, if it is needed."""

from typing import Any

from celery import shared_task

from imagemill.build import Build, BuildRequest, UploadPlan
from imagemill.config.model import KanikoBuilder
from imagemill.errors import ImagemillError, TransientError
from tasks import resolve
from tasks.setup import setup


@shared_task(
    name="imagemill.plan_upload",
    throws=(ImagemillError,),
    acks_late=False,  # nobody waits for long
    autoretry_for=(TransientError,),
    max_retries=3,
    retry_backoff=1,
)
def plan_upload(request: dict[str, Any], source_hash: str | None = None) -> dict[str, Any]:
    """What the config of the request says; with a source hash also whether its image is missing."""
    here, parsed = setup(), BuildRequest.parse(request)
    config = resolve.launch_config(here, parsed).config
    builder = config.builder
    if isinstance(builder, KanikoBuilder):  # people put secrets into its environment variables
        builder = builder.model_copy(update={"kaniko_config": {}})
    wanted = True
    if source_hash is not None and not parsed.force:
        image = resolve.destination(Build(id="", request=parsed, started=0, config=config)).with_tag(source_hash)
        wanted = resolve.registry(here, image).digest(image) is None
    return UploadPlan(builder=builder, region=config.environment.region, wanted=wanted).dump()
