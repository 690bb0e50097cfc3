"""All tasks, imported so that Celery knows them."""

from tasks import (
    build,
    build_image,
    build_platforms,
    check_registry,
    graft,
    hash_source,
    load_config,
    notify,
    plan_upload,
    report,
    sweep,
    upload_context,
    verify,
)

__all__ = [
    "build",
    "build_image",
    "build_platforms",
    "check_registry",
    "graft",
    "hash_source",
    "load_config",
    "notify",
    "plan_upload",
    "report",
    "sweep",
    "upload_context",
    "verify",
]
