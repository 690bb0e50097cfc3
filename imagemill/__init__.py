"""Imagemill builds container images: source code goes in, an image pinned to its digest comes
out.

    from imagemill import Client

Names are loaded when they are first used, so that whoever needs an adapter alone pays for no
client, and whoever needs the client for no adapter.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from imagemill.async_client import AsyncClient
    from imagemill.client import Client
    from imagemill.errors import (
        BuildCancelled,
        ConfigError,
        ImagemillError,
        NotInstalled,
        OperatorError,
        PermissionDenied,
        ServiceUnreachable,
        TransientError,
        UserError,
    )
    from imagemill.messages import (
        BuildFailed,
        BuildReport,
        BuildRequest,
        BuildStatus,
        BuildSummary,
        Failure,
        State,
        StepTime,
    )
    from imagemill.state.journal import Event

__all__ = [
    "AsyncClient",
    "BuildCancelled",
    "BuildFailed",
    "BuildReport",
    "BuildRequest",
    "BuildStatus",
    "BuildSummary",
    "Client",
    "ConfigError",
    "Event",
    "Failure",
    "ImagemillError",
    "NotInstalled",
    "OperatorError",
    "PermissionDenied",
    "ServiceUnreachable",
    "State",
    "StepTime",
    "TransientError",
    "UserError",
    "__version__",
]

_MODULES = {"AsyncClient": "async_client", "Client": "client", "Event": "state.journal"}
"""Where public names are that are neither errors nor messages."""


def __getattr__(name: str) -> object:
    if name in __all__:
        for module in (_MODULES.get(name, "errors"), "messages"):
            loaded = import_module(f"{__name__}.{module}")
            if hasattr(loaded, name):
                return getattr(loaded, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
