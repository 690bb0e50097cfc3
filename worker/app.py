"""The Celery application: `celery -A worker.app worker -Q imagemill`."""

from typing import Any

from celery import Celery

from worker import health
from worker.celeryconfig import configuration, is_redis
from worker.logging import install
from worker.redelivery import KeepMessages
from worker.settings import Settings, from_environment


def create(settings: Settings) -> Celery:
    """An application with these settings; connects to nothing yet."""
    app = Celery("imagemill")
    app.conf.update(configuration(settings))
    if is_redis(settings.broker):
        app.steps["consumer"].add(KeepMessages)
    if settings.metrics_port is not None:
        health.install(app, settings, settings.metrics_port)
    return app


def __getattr__(name: str) -> Any:
    """`app`, made when Celery first asks for it, so that importing this module reads no
    environment.
    """
    if name not in ("app", "celery"):
        raise AttributeError(name)
    settings = from_environment()
    install(settings)
    globals()["app"] = globals()["celery"] = create(settings)
    return globals()["app"]
