"""Files of the operator's, with what a worker is to know, and folders that are a worker's own."""

import os
from pathlib import Path

from imagemill.errors import OperatorError, PermissionDenied
from imagemill.place import machine


def own_file(path: Path) -> bytes | None:
    """Return what is in a file of the operator's; None if there is none."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return None
    except (PermissionError, NotADirectoryError) as error:
        raise OperatorError(
            f"{machine().capitalize()} cannot read its credentials in {path}: {error.strerror}",
            f"let the user with the id {os.geteuid()} read it",
        ) from None


def not_ours(what: str, folder: Path, error: OSError) -> PermissionDenied:
    """Return the error where a folder of the state folder is another user's; `what` is to be kept
    there.
    """
    return PermissionDenied(
        f"{machine().capitalize()} may not keep {what} in {folder}: {error.strerror}",
        f"workers of different users need an IMAGEMILL_STATE_DIR each; this one has the id {os.geteuid()}",
    )
