"""The command `imagemill`, also as `python -m imagemill`."""

import sys

from imagemill import start
from imagemill.errors import NotInstalled, end_process
from imagemill.extras import explained


def main() -> None:
    """Run the command and exit; without its packages, say how to install them."""
    start.quickly()
    try:
        with explained():
            from imagemill.cli.commands import main as run

            run()
    except NotInstalled as error:  # rich, which would say it nicely, is what is missing
        end_process(error)
    except KeyboardInterrupt:  # while the command was imported, before it could mind
        sys.exit(130)


if __name__ == "__main__":
    main()
