"""Reads the header Retry-After, by which a server says when it wants to be asked again."""

from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry


def retry_after_seconds(header: str | None) -> float | None:
    """Seconds from now (RFC 9110, section 10.2.3: a number, or a date); None if it says nothing
    that can be read.
    """
    try:
        return Retry().parse_retry_after(header) if header else None
    except (InvalidHeader, ValueError, OverflowError):
        return None
