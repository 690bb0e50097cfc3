"""Imagemill builds container images: source code goes in, an image pinned to its digest comes
out.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["BuildReport", "BuildRequest", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the public names on first use: the adapters and the worker need neither the client nor
    Celery.
    """
    if name == "Client":
        from imagemill.client import Client

        return Client
    if name in ("BuildReport", "BuildRequest"):
        from imagemill import messages

        return getattr(messages, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
