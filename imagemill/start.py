"""A quick start, for processes that somebody waits for: the commands, and the worker of the command
line's own service.

Most of a short command is the imports of packages, and much of that is what these look for in case
that somebody wants it. Here nobody does, so they are told that it is not there.
"""

import gc
import os
import sys
from typing import Any

from imagemill.environment import variable

_UNUSED = frozenset({"celery.result_backends", "kombu.matchers", "kombu.serializers"})
"""Entry points of what may be added to Celery: results are kept in Redis, and messages are JSON."""


def quickly() -> None:
    """Have what is imported from now on look for no garbage, no plugins and no metrics."""
    # Imports make much and no garbage: some 150,000 objects, among which looking for it takes long.
    gc.set_threshold(200_000)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if not variable("IMAGEMILL_OTLP_ENDPOINT"):
        # Where OpenTelemetry is installed, redis-py imports it, to offer metrics.
        for name in ("opentelemetry.metrics", "opentelemetry.sdk.metrics"):
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def with_celery() -> None:
    """Import of Celery what looks for more than it brings itself, and have that look for nothing: to
    find plugins it would read the metadata of all that is installed.
    """
    from functools import cache
    from importlib import metadata

    everything = metadata.entry_points

    def entry_points(**wanted: Any) -> Any:
        if wanted.get("group") in _UNUSED:
            return metadata.EntryPoints()
        return everything(**wanted)

    metadata.entry_points = entry_points
    metadata.version = cache(metadata.version)  # redis-py asks for its own with each connection
    if "yaml" not in sys.modules:
        sys.modules["yaml"] = None  # type: ignore[assignment]
        import kombu.serialization  # noqa: F401

        del sys.modules["yaml"]
