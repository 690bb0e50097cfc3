"""What the doctor finds, and how an error becomes a finding."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from imagemill.errors import ImagemillError
from imagemill.extras import explained


class Verdict(StrEnum):
    """What a finding means for builds."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """What one check has found."""

    check: str
    verdict: Verdict
    message: str
    hint: str = ""
    grants: tuple[str, ...] = ()
    """Where a permission is missing: the pieces of a policy that grant it (`imagemill permissions`
    prints it all).
    """


def checked(check: str, find: Callable[[], Finding], lacking: Verdict = Verdict.FAILED) -> Finding:
    """Return what the check finds; an error is a finding too."""
    try:
        with explained():
            return find()
    except ImagemillError as error:
        return failure(check, error, lacking)


def failure(check: str, error: ImagemillError, verdict: Verdict = Verdict.FAILED) -> Finding:
    """Return an error as a finding."""
    return Finding(check, verdict, error.message, error.hint)
