"""Runs git, on what nobody vouches for: never more of it than it needs."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from imagemill import processes
from imagemill.errors import OperatorError, UserError

MOST_PROCESSES = 100
"""Processes that git may have under it: far more than it needs, but servers can make a git that
fetches what is missing by itself start another one that does so, and so on."""

_COUNT_SECONDS = 2.0
"""How often they are counted."""


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    stdin: IO[bytes],
    check: Callable[[], None],
    out: processes.Read,
    err: processes.Read,
) -> int:
    """See `processes.run`. Git is killed at once, since there is nothing that would have to end in
    good order; so it is if it starts more than `MOST_PROCESSES`.
    """
    counted = time.monotonic()

    def look(process: int) -> None:
        nonlocal counted
        check()
        if time.monotonic() - counted > _COUNT_SECONDS:
            with suppress(psutil.NoSuchProcess):
                if len(psutil.Process(process).children(recursive=True)) > MOST_PROCESSES:
                    raise UserError(
                        f"The repository's server made git start more than {MOST_PROCESSES} processes",
                        "use another server; the operator should have a newer git",
                    )
            counted = time.monotonic()

    try:
        return processes.run(command, environment, look, out, err, folder=folder, stdin=stdin)
    except processes.CannotRunError as error:
        raise OperatorError(str(error), "see its installation") from None
