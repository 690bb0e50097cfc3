"""Spans of the steps of builds, where the worker traces (`worker.tracing`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.exceptions import Ignore, Reject

from imagemill.errors import ImagemillError

_tracer: Any = None
"""OpenTelemetry's `Tracer`; None: nobody traces, and nothing of OpenTelemetry is imported."""


def use(tracer: Any) -> None:
    """Have spans made from now on."""
    global _tracer
    _tracer = tracer


@contextmanager
def span(step: str, build: str, parent: str | None) -> Iterator[str | None]:
    """Run the block in a span of the step, below `parent`; yield what its own spans are below.

    Of an error only its class is told, since its text may be long, and is in the report.
    """
    if _tracer is None:
        yield parent
        return
    from opentelemetry.trace import SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    from imagemill.tracing import HEADER, written

    above = TraceContextTextMapPropagator().extract({HEADER: parent} if parent else {})
    with _tracer.start_as_current_span(
        f"imagemill.{step}",
        above,
        SpanKind.CONSUMER,
        {"imagemill.build": build, "imagemill.step": step},
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        try:
            yield written(made.get_span_context())
        except (Ignore, Reject):  # it is somebody else's, or is tried again
            raise
        except Exception as error:
            kind = error.kind if isinstance(error, ImagemillError) else type(error).__name__
            made.set_status(StatusCode.ERROR, kind)
            made.set_attribute("error.type", kind)
            raise
