"""Every Celery setting, with the reason for it."""

from typing import Any

from celery.utils.sysinfo import cpu_budget  # type: ignore[attr-defined]  # not in celery-types yet

from imagemill import connections
from imagemill.names import BUILD_KEEP_SECONDS, LIGHT, SWEEP
from worker import queues
from worker.settings import Settings

OVERTIME_SECONDS = 5.0
"""For how long a process may go on with a step that is past its time, before it is killed."""


class _Limits:
    """The hard limit of each step, for Celery: by the setting that its decorator names."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def annotate(self, task: Any) -> dict[str, float] | None:
        """Return what Celery is to set on a task."""
        name = getattr(task, "timeout", None)
        return {"time_limit": getattr(self._settings, name) + OVERTIME_SECONDS} if name else None


def configuration(settings: Settings) -> dict[str, Any]:
    """Celery's configuration for a worker with these settings."""
    return {
        "imagemill": settings,
        "broker_url": settings.broker,
        "result_backend": settings.backend,
        **connections.tls_options(settings.broker),
        "imports": ("tasks.all",),
        # JSON only: a pickled message is code that runs on the worker.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_default_queue": LIGHT,
        "enable_utc": True,
        **_delivery(settings),
        "result_expires": BUILD_KEEP_SECONDS,
        "result_backend_transport_options": {"global_keyprefix": settings.key_prefix},
        "redis_backend_health_check_interval": 30,
        "redis_socket_keepalive": _is_tcp(settings.backend),
        "redis_retry_on_timeout": True,
        **_processes(settings),
    }


def is_redis(broker: str) -> bool:
    """Whether the broker is Redis, by its URL."""
    return not broker.startswith("amqp")


def _is_tcp(url: str) -> bool:
    """Whether there is a TCP connection to be kept alive; Celery fails if it is to do so on a unix
    socket.
    """
    return url.startswith(("redis://", "rediss://"))


def _delivery(settings: Settings) -> dict[str, Any]:
    redis = is_redis(settings.broker)
    return {
        # A message is acknowledged when its step has ended, so that one whose worker dies is
        # delivered again.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # A worker takes what it can run: builds are long, and a message taken in advance waits
        # behind one.
        "worker_prefetch_multiplier": 1,
        "broker_connection_retry_on_startup": True,
        # A broker that is away for longer is left to the reaper, which sends what is due.
        "task_publish_retry_policy": {
            "max_retries": 6,
            "interval_start": 0.1,
            "interval_step": 0.5,
            "interval_max": 2,
        },
        # A step whose broker went away goes on: its claim is in its build's record, so the message
        # that is delivered again gives way (docs/adr/0018-the-record-is-the-truth.md).
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # A Redis that is full, or a replica in the middle of a failover, is waited for like one
        # that is away.
        "broker_channel_error_retry": True,
        # A worker waits for its broker for as long as it takes.
        "broker_connection_max_retries": None,
        # Whoever may publish to the broker speaks it: see worker/remote_control.py.
        "worker_enable_remote_control": settings.remote_control != "off",
        # Looks at a message before Celery works with it.
        "worker_consumer": "worker.consumer:Consumer",
        "broker_transport_options": _redis_transport(settings)
        if redis
        else {"confirm_publish": True},
        "task_queues": () if redis else queues.declared(),
    }


def _redis_transport(settings: Settings) -> dict[str, Any]:
    return {
        # Shorter than a build may take: its record says that it runs, so the message that is
        # delivered again gives way.
        "visibility_timeout": settings.redelivery_seconds,
        # Kombu's lock on restoring them, which is 300 s otherwise: a worker that was killed with it
        # must not hold the others up.
        "unacked_mutex_expire": max(1, round(settings.redelivery_seconds / 2)),
        # Kombu looks for messages to restore every interval times throttle seconds; its defaults
        # make that 100 s.
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # Pub/sub is not scoped to a database, so a prefix it is that keeps two installations apart.
        "global_keyprefix": settings.key_prefix,
        "health_check_interval": 30,
        "socket_keepalive": _is_tcp(settings.broker),
    }


def _processes(settings: Settings) -> dict[str, Any]:
    return {
        # A step ends by its own deadline, or by the watchdog (tasks/watchdog.py); these are for a
        # process that does not come back even so.
        "task_time_limit": settings.build_timeout + OVERTIME_SECONDS,
        "task_annotations": (_Limits(settings),),
        # Of the light pool, whose steps wait for Redis, registries and clouds about as long as they
        # compute; the others, started with --concurrency, take as many builds as their engine or
        # cluster bears. By the CPUs that this process may use: a pod of two on a node of 96 has two.
        "worker_concurrency": 2 * cpu_budget().count,
        # For Flower.
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "beat_schedule": {
            "sweep": {
                "task": SWEEP,
                "schedule": 3600,
                "options": {"queue": LIGHT, "expires": 3600},
            }
        },
    }
