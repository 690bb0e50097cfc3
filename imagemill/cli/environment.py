"""Environment variables that no option stands for: those that the caller names, and what docker is started with."""

import os


def variable(name: str) -> str | None:
    """The value of one variable; None if it is not set."""
    return os.environ.get(name)


def everything() -> dict[str, str]:
    """All variables, for a command that is started with them."""
    return dict(os.environ)
