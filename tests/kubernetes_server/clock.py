"""Times as the API writes them."""

from datetime import UTC, datetime


def now() -> str:
    """The time as metav1.Time has it: UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact_now() -> str:
    """The time as the container runtime stamps a line of a log: UTC, to the nanosecond."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def parse(text: str) -> datetime:
    """A time of RFC 3339."""
    return datetime.fromisoformat(text)
