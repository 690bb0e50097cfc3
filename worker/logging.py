"""The worker's log: every line with its build and step, as text or as JSON."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from celery.signals import setup_logging

from imagemill.text import one_line, printable
from tasks.log_context import current
from worker.settings import Settings, doubts

MOST = 8192
"""Characters of a message that are logged; the rest is cut."""


class WithContext(logging.Filter):
    """Adds the bound build and step to each record, as `context`."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = current()
        record.__dict__.update(
            context=context, suffix="".join(f" {key}={value}" for key, value in context.items())
        )
        return True


class LineFormatter(logging.Formatter):
    """One line per record, and what belongs to it (a traceback) indented below: whatever is in a
    message, no line of the log that begins with a time is anybody's but ours.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(line)s%(suffix)s")

    def format(self, record: logging.LogRecord) -> str:
        record.line = one_line(record.getMessage(), MOST)
        return super().format(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's)
        return "\n".join(
            f"    {line}" for line in printable(super().formatException(ei)).split("\n")
        )


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": one_line(record.getMessage(), MOST),
            **getattr(record, "context", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def install(settings: Settings) -> None:
    """Have Celery leave the logging to us, and set it up when the worker starts."""

    def configure(**_: object) -> None:
        handler = logging.StreamHandler(sys.stderr)
        handler.addFilter(WithContext())
        handler.setFormatter(JsonFormatter() if settings.log_format == "json" else LineFormatter())
        logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
        # Celery's lines are of its tasks: that the task which began a build "succeeded" says nothing
        # of the build, and steps that failed are told by the report, in our words.
        logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
        for doubt in doubts(settings):
            logging.getLogger(__name__).warning("%s", doubt)

    setup_logging.connect(configure, weak=False)
