"""The command `imagemill`, also as `python -m imagemill`."""

import gc
import os
import sys

from imagemill.errors import OperatorError
from imagemill.extras import explained


def main() -> None:
    """Run the command and exit; without its packages, say how to install them."""
    # Imports make much and no garbage: looking for it takes a tenth of a short command.
    gc.set_threshold(50_000)
    # None is used, and to look for them reads the metadata of all that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        with explained():
            from imagemill.cli.commands import main as run

            run()
    except OperatorError as error:  # rich, which would say it nicely, is what is missing
        sys.exit(f"error: {error.message}\nhint: {error.hint}")


if __name__ == "__main__":
    main()
