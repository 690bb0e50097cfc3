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
    "Client",
    "ConfigError",
    "Event",
    "Failure",
    "ImagemillError",
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
_OTHERS = ("errors", "messages")
"""Where the public names are."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = (_MODULES[name],) if name in _MODULES else _OTHERS
    for module in modules:
        found = getattr(import_module(f"{__name__}.{module}"), name, None)
        if found is not None:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
