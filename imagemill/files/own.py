"""Files of the operator's, with what a worker is to know: keys and credentials."""

import os
from pathlib import Path

from imagemill.errors import OperatorError
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
