"""What errors call the machine that they speak of: who gives a command sits at it, who asks a
service has never seen it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from imagemill.environment import variable

_commands = 0
"""How many commands of this process read for themselves just now."""


def machine() -> str:
    """Return the words for the machine that this runs on, for the middle of a sentence."""
    return "this machine" if is_attended() else "the worker"


def is_attended() -> bool:
    """Return whether whoever asks for what is done here sits at this machine."""
    return bool(_commands) or variable("IMAGEMILL_ATTENDED") == "1"


@contextmanager
def attended() -> Iterator[None]:
    """While the block runs, whoever reads the errors sits at this machine."""
    global _commands
    _commands += 1
    try:
        yield
    finally:
        _commands -= 1
