"""What a worker counts and measures, for Prometheus: told by signals of the chain, served by
`worker.health`.

A pool of processes counts in files that they share, in a folder of the worker's.
"""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery.signals import before_task_publish, task_prerun, worker_process_shutdown

from imagemill.builders.kaniko import tally
from imagemill.extras import explained
from imagemill.messages import Build, BuildReport
from tasks.signals import (
    build_began,
    build_ended,
    cache_asked,
    context_stored,
    message_refused,
    step_ended,
    step_redelivered,
    step_retried,
)

SENT = "imagemill_sent"
"""The header of a message that says when it was sent, in seconds since 1970."""

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
"""Upper bounds of the buckets of times: from a registry's answer to the longest build."""


class Metrics:
    """The worker's metrics. Made once, before its processes are started."""

    def __init__(self, folder: Path) -> None:
        """Count in the folder, which is made empty."""
        _share_values(folder)
        from prometheus_client import Counter, Histogram

        def seconds(name: str, what: str, label: str) -> Histogram:
            return Histogram(f"imagemill_{name}", what, (label,), buckets=_SECONDS)

        self._began = Counter("imagemill_builds_begun", "Builds whose request was taken.")
        self._ended = Counter(
            "imagemill_builds",
            "Builds that have ended: how, and whether an image was built, was made of an earlier one"
            " without a builder, was there already, or was made by another build that this one"
            " waited for.",
            ("status", "why", "builder"),
        )
        self._build_seconds = seconds(
            "build_seconds", "Time from a request's being taken to its report.", "status"
        )
        self._step_seconds = seconds("step_seconds", "Time that a step took.", "step")
        self._wait_seconds = seconds(
            "queue_wait_seconds", "Time that a message lay in its queue.", "queue"
        )
        self._retries = Counter(
            "imagemill_step_retries", "Steps that are tried again after an error.", ("step",)
        )
        self._redeliveries = Counter(
            "imagemill_step_redeliveries", "Steps of workers that died.", ("step",)
        )
        self._dead_letters = Counter(
            "imagemill_dead_letters", "Messages that were put aside: nobody can work with them."
        )
        self._caches = Counter(
            "imagemill_cache_requests",
            "How often something kept from an earlier build was looked for, and was there.",
            ("cache", "result"),
        )
        self._context_bytes = Counter("imagemill_context_bytes", "Bytes of contexts stored.")
        self._listen()

    def _listen(self) -> None:
        build_began.connect(lambda **_: self._began.inc(), weak=False)
        build_ended.connect(self._count_ended, weak=False)
        step_ended.connect(
            lambda step, seconds, **_: self._step_seconds.labels(step).observe(seconds), weak=False
        )
        step_retried.connect(lambda step, **_: self._retries.labels(step).inc(), weak=False)
        step_redelivered.connect(
            lambda step, **_: self._redeliveries.labels(step).inc(), weak=False
        )
        message_refused.connect(lambda **_: self._dead_letters.inc(), weak=False)
        cache_asked.connect(
            lambda cache, hit, **_: self._caches.labels(cache, "hit" if hit else "miss").inc(),
            weak=False,
        )
        context_stored.connect(lambda size, **_: self._context_bytes.inc(size), weak=False)
        before_task_publish.connect(_note_sent, weak=False)
        task_prerun.connect(self._measure_wait, weak=False)
        worker_process_shutdown.connect(_forget_process, weak=False)

    def _count_ended(self, build: Build, report: BuildReport, **_: Any) -> None:
        self._ended.labels(report.status, why(build, report), report.builder or "none").inc()
        if report.seconds is not None:
            self._build_seconds.labels(report.status).observe(report.seconds)

    def _measure_wait(self, task: Any, **_: Any) -> None:
        sent = (task.request.headers or {}).get(SENT)
        queue = (task.request.delivery_info or {}).get("routing_key")
        # A message that a caller has given a countdown waits on purpose.
        if isinstance(sent, int | float) and queue and not task.request.eta:
            self._wait_seconds.labels(queue).observe(max(0.0, time.time() - sent))


def why(build: Build, report: BuildReport) -> str:
    """Return in a word how a build came by its image: `built`, `grafted`, `waited`, `existed`, or
    `none` if it has none.
    """
    if report.status != "succeeded":
        return "none"
    if report.built:
        return "grafted" if report.grafted else "built"
    return "waited" if build.waited else "existed"


def exposition(queue_lengths: Mapping[str, int]) -> bytes:
    """Return what all processes of the worker have counted, how many messages lie in its queues, and
    how far the Jobs are that it watches, as Prometheus' text.
    """
    from prometheus_client import CollectorRegistry, Gauge, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    counted: Any = CollectorRegistry()
    MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
    # Not of the worker but of the broker: asked anew for each scrape, so in a registry of its own.
    asked = CollectorRegistry()
    length = Gauge("imagemill_queue_length", "Messages in a queue.", ("queue",), registry=asked)
    for queue, messages in queue_lengths.items():
        length.labels(queue).set(messages)
    jobs = Gauge("imagemill_jobs", "Jobs of Kaniko that builds watch.", ("state",), registry=asked)
    for state, number in tally.by_state():
        jobs.labels(state).set(number)
    return generate_latest(counted) + generate_latest(asked)


def _share_values(folder: Path) -> None:
    """Have Prometheus' client count in the folder, which is made empty, for all processes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    with explained():
        from prometheus_client import values
    # Chosen by the variable when it was imported: by Flower, a plugin of Celery's command, before
    # we are asked.
    values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]


def _note_sent(headers: dict[str, Any], **_: Any) -> None:
    headers[SENT] = time.time()


def _forget_process(pid: int | None = None, **_: Any) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid or os.getpid())  # type: ignore[no-untyped-call]
