"""Whether the cloud knows us, and the context store takes contexts."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from imagemill.adapters import Adapter, load
from imagemill.clouds import Identity
from imagemill.doctor.examination import Case
from imagemill.doctor.findings import Finding, Verdict
from imagemill.objects import check, store_for
from imagemill.permissions import Use

IDENTITIES: Mapping[str, Adapter] = MappingProxyType(
    {
        "aws": Adapter("imagemill.clouds.aws", "identity", "aws"),
        "azure": Adapter("imagemill.clouds.azure", "identity", "azure"),
        "gcp": Adapter("imagemill.clouds.gcp", "identity", "gcp"),
    }
)
"""Type of environment → the function that says who we are there."""

_NAMES = {"aws": "AWS", "azure": "Azure", "gcp": "Google Cloud"}


def examine(case: Case) -> Iterator[Finding]:
    """Yield the credentials of the config's environment, and its context store."""
    environment, uri = case.config.environment, case.config.builder.build_context_store
    if environment.type in IDENTITIES:
        yield case.checked("identity", lambda: _identity(case))
    if uri and case.config.builder.type != "noop":
        yield case.checked(
            "context store", lambda: _store(uri, environment.region), Use.KEEP_CONTEXTS
        )


def _identity(case: Case) -> Finding:
    environment = case.config.environment
    found: Identity = load(IDENTITIES, environment.type, "environment")(environment.region)
    case.who[environment.type] = found.name
    known = f"{_NAMES[environment.type]} knows us as {found.name}; credentials: {found.source}"
    return Finding("identity", Verdict.OK, known)


def _store(uri: str, region: str | None) -> Finding:
    check(store_for(uri, region=region))
    return Finding(
        "context store", Verdict.OK, f"{uri}: a probe was stored, read and removed again"
    )
