"""The trace that a build belongs to, as W3C Trace Context writes it
(https://www.w3.org/TR/trace-context/#traceparent-header).

Of the context of a request its `traceparent` alone is carried: no `tracestate` and no `baggage`, in
which whoever asks could send anything to those who watch.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HEADER = "traceparent"
"""Header of a message, as OpenTelemetry's own instrumentation of Celery has it."""

_FORM = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def accepted(text: object) -> str | None:
    """Return the text if it is a `traceparent`, else None."""
    return text if isinstance(text, str) and _FORM.fullmatch(text) else None


def written(context: Any) -> str | None:
    """Return an OpenTelemetry `SpanContext` as a `traceparent`; None if there is none."""
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


@contextmanager
def submitting() -> Iterator[dict[str, str]]:
    """Yield the headers of a request, within a span of its own if the program traces: then it has
    imported OpenTelemetry, and else nobody does.
    """
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        yield {}
        return
    tracer, kind = trace.get_tracer("imagemill"), trace.SpanKind.PRODUCER
    with tracer.start_as_current_span("imagemill.submit", kind=kind) as span:
        parent = written(span.get_span_context())
        yield {HEADER: parent} if parent else {}
