"""The Celery application: `celery -A worker.app worker -Q imagemill`."""

from typing import Any

from celery import Celery
from celery.signals import celeryd_init, worker_shutting_down

from imagemill.errors import ImagemillError, end_process
from tasks import shutdown
from tasks.settings import seal_of
from worker import memory, remote_control, tracing, transport
from worker.celeryconfig import configuration
from worker.logging import install
from worker.presence import Announce
from worker.reaper import Reap, ServeSteps
from worker.settings import Settings, from_environment
from worker.tidy import Tidy


def create(settings: Settings) -> Celery:
    """Return an application with these settings; connects to nothing yet."""
    app = Celery("imagemill")
    app.conf.update(configuration(settings))
    transport.install()
    remote_control.install(settings.remote_control)
    worker_shutting_down.connect(shutdown.begin, weak=False)
    celeryd_init.connect(_check_seal, weak=False)
    celeryd_init.connect(memory.bound, weak=False)
    celeryd_init.connect(memory.leave_alone, weak=False)
    app.steps["worker"].update((ServeSteps, Reap, Tidy))
    app.steps["consumer"].add(Announce)
    if settings.otlp_endpoint is not None:
        tracing.install(settings.otlp_endpoint)
    if settings.metrics_port is not None:
        from worker import health  # brings a web server

        health.install(app, settings)
    return app


def _settings() -> Settings:
    """Read the environment and set up the log."""
    try:
        settings = from_environment()
    except ImagemillError as error:
        end_process(error)
    install(settings)
    return settings


def _check_seal(conf: Any, **_: object) -> None:
    """See that a worker can sign: without that, each of its steps would fail."""
    try:
        seal_of(conf.imagemill)
    except ImagemillError as error:
        end_process(error)


def __getattr__(name: str) -> Any:
    """`app`, made when Celery first asks for it, so that importing this module reads no
    environment.
    """
    if name not in ("app", "celery"):
        raise AttributeError(name)
    settings = _settings()
    globals()["app"] = globals()["celery"] = create(settings)
    return globals()["app"]
