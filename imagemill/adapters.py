"""Loads an adapter on its first use, so that `import imagemill` stays fast and needs no adapter's
own packages.

Each port's package holds a read-only table, name → `Adapter`; adding an adapter is a module and a
line.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

from imagemill.errors import OperatorError, UserError
from imagemill.extras import install


class Adapter(NamedTuple):
    """Where an adapter is: its module, its class, and the extra of Imagemill that brings the
    packages it imports.
    """

    module: str
    cls: str
    extra: str = ""


def load(table: Mapping[str, Adapter], name: str, what: str) -> type[Any]:
    """Return the class that `table` has under `name`; `what` says in errors what kind of thing it
    is ("builder").

    `UserError` if the table has no such name; `OperatorError` if a package that the adapter needs
    is not installed.
    """
    if name not in table:
        nearest = get_close_matches(name, table, n=1)
        guess = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise UserError(f"There is no {what} {name!r}", f"{guess}known: {', '.join(sorted(table))}")
    adapter = table[name]
    try:
        module = import_module(adapter.module)
    except ImportError as error:
        # No `pip install` brings a module of our own.
        if not adapter.extra or (error.name or "").split(".")[0] == __name__.split(".")[0]:
            raise
        raise OperatorError(
            f"The {what} {name!r} needs the Python package {error.name!r}, which cannot be imported: {error.msg}",
            install(adapter.extra),
        ) from error
    cls: type[Any] = getattr(module, adapter.cls)
    return cls
