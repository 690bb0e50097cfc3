"""The build and step that a log record belongs to, bound in one place and cleared after."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_context: ContextVar[dict[str, str] | None] = ContextVar("imagemill_log_context", default=None)


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Bind fields to all log records of this thread while the block runs."""
    token = _context.set({**current(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def bind(**fields: str) -> None:
    """Bind fields to all log records of this thread from now on, in place of what was bound."""
    _context.set(fields)


def current() -> dict[str, str]:
    """Return the fields that are bound now."""
    return _context.get() or {}
