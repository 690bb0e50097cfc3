"""The worker's log: every line with its build and step, as text or as JSON."""

import json
import logging
import sys
from datetime import UTC, datetime

from celery.signals import setup_logging

from tasks.log_context import current
from worker.settings import Settings


class WithContext(logging.Filter):
    """Adds the bound build and step to each record, as `context`."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = current()
        record.__dict__.update(
            context=context, suffix="".join(f" {key}={value}" for key, value in context.items())
        )
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
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
        text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s%(suffix)s")
        handler.setFormatter(JsonFormatter() if settings.log_format == "json" else text)
        logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
        # Celery's lines are of its tasks: that the task which began a build "succeeded" says nothing
        # of the build, and steps that failed are told by the report, in our words.
        logging.getLogger("celery.app.trace").setLevel(logging.WARNING)

    setup_logging.connect(configure, weak=False)
