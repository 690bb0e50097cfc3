"""Sends what the steps of builds take to a collector, as OpenTelemetry's traces over HTTP.

Headers, timeouts, sampling and the attributes of the worker are OpenTelemetry's own variables
(`OTEL_…`), which its SDK reads.
"""

from typing import Any

from celery.signals import worker_init, worker_process_shutdown

from imagemill.extras import explained
from tasks import tracing

_FLUSH_SECONDS = 5


def install(endpoint: str) -> None:
    """Have the worker that this process becomes trace to the collector at a URL."""

    def begin(sender: Any, **_: object) -> None:
        with explained():
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = {"service.name": "imagemill", "service.instance.id": str(sender)}
        provider = TracerProvider(resource=Resource.create(named))
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        # Its thread is started anew in each process of the pool.
        provider.add_span_processor(BatchSpanProcessor(exporter))
        tracing.use(provider.get_tracer("imagemill"))
        worker_process_shutdown.connect(
            lambda **_: provider.force_flush(_FLUSH_SECONDS * 1000), weak=False
        )

    worker_init.connect(begin, weak=False)
