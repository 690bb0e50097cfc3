"""Every Celery setting, with the reason for it."""

from typing import Any

from tasks.pipeline import LIGHT
from worker.settings import Settings

REDELIVERY_MARGIN = 300
"""Seconds on top of the longest step until Redis hands a message to another worker. Within them a worker that is
stopped by its deadline has reported, so that no build runs twice because it was slow."""

RESULT_SECONDS = 24 * 3600
"""How long results are kept; the journals' `KEEP_SECONDS`, too."""


def configuration(settings: Settings) -> dict[str, Any]:
    """Celery's configuration for a worker with these settings."""
    return {
        "imagemill": settings,
        "broker_url": settings.broker,
        "result_backend": settings.backend,
        "imports": ("tasks.all",),
        **_messages(),
        **_delivery(settings),
        **_results(settings),
        **_processes(settings),
    }


def _messages() -> dict[str, Any]:
    return {
        # JSON only: a pickled message is code that runs on the worker.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_default_queue": LIGHT,
        "enable_utc": True,
    }


def _delivery(settings: Settings) -> dict[str, Any]:
    redis = not settings.broker.startswith("amqp")
    longest = max(settings.build_timeout, settings.hash_timeout, settings.upload_timeout)
    return {
        # A message is acknowledged when its step has ended, so that one whose worker dies is delivered again.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # A worker takes what it can run: builds are long, and a message taken in advance waits behind one.
        "worker_prefetch_multiplier": 1,
        "broker_connection_retry_on_startup": True,
        # RabbitMQ redelivers at once what a lost connection held, so the step that runs is ended; Redis does so only
        # after the visibility timeout, so there it is better to let it finish.
        "worker_cancel_long_running_tasks_on_connection_loss": not redis,
        "broker_transport_options": _redis_transport(settings, longest) if redis else {"confirm_publish": True},
    }


def _redis_transport(settings: Settings, longest: float) -> dict[str, Any]:
    return {
        "visibility_timeout": longest + REDELIVERY_MARGIN,
        # Kombu looks for messages to restore every interval × throttle seconds; its defaults make that 100 s.
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # Pub/sub is not scoped to a database, so a prefix it is that keeps two installations apart.
        "global_keyprefix": settings.key_prefix,
        "health_check_interval": 30,
        "socket_keepalive": True,
    }


def _results(settings: Settings) -> dict[str, Any]:
    return {
        "result_expires": RESULT_SECONDS,
        "result_backend_transport_options": {"global_keyprefix": settings.key_prefix},
        # The intermediate steps ignore their results, but a failure in one must reach the build's id: without this
        # the caller waits for ever.
        "task_store_errors_even_if_ignored": True,
        "redis_backend_health_check_interval": 30,
        "redis_socket_keepalive": True,
        "redis_retry_on_timeout": True,
    }


def _processes(settings: Settings) -> dict[str, Any]:
    return {
        # The step ends by its own deadline; this is for one that hangs where it cannot look at the clock.
        "task_time_limit": settings.build_timeout + REDELIVERY_MARGIN / 2,
        # For Flower.
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "beat_schedule": {
            "sweep": {"task": "imagemill.sweep", "schedule": 3600, "options": {"queue": LIGHT, "expires": 3600}}
        },
    }
