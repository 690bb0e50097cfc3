"""The environment variables of this process, for the client and the command line; a worker's
settings are read by worker/settings.py.
"""

import os
from pathlib import Path


def variable(name: str) -> str | None:
    """Return the value of one variable; None if it is not set."""
    return os.environ.get(name)


def everything() -> dict[str, str]:
    """Return all variables, for a command that is started with them."""
    return dict(os.environ)


def cache_folder() -> Path:
    """Return the user's cache folder: https://specifications.freedesktop.org/basedir-spec/latest/."""
    home = Path(variable("XDG_CACHE_HOME") or "")
    return (home if home.is_absolute() else Path.home() / ".cache") / "imagemill"


def git_config() -> dict[str, str]:
    """Return the variable that names git's config: as it is set, else the user's own config, as git
    at a terminal has it.
    """
    given, own = variable("IMAGEMILL_GIT_CONFIG"), Path.home() / ".gitconfig"
    path = given or (str(own) if own.is_file() else None)
    return {"IMAGEMILL_GIT_CONFIG": path} if path else {}
