"""Whether the cloud knows us, and the context store takes contexts."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from imagemill.adapters import Adapter, load
from imagemill.builders.kaniko.context_access import endpoint, signs
from imagemill.clouds import Identity
from imagemill.config import KanikoBuilder
from imagemill.config.regions import store_region
from imagemill.doctor.examination import Case
from imagemill.doctor.findings import Finding, Verdict
from imagemill.errors import PermissionDenied
from imagemill.objects import check, store_for
from imagemill.permissions import Use
from imagemill.place import machine

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
    builder = case.config.builder
    if isinstance(builder, KanikoBuilder) and uri and not uri.startswith("file:"):
        yield case.checked("context access", lambda: _access(case, builder))


def _identity(case: Case) -> Finding:
    environment = case.config.environment
    found: Identity = load(IDENTITIES, environment.type, "environment")(environment.region)
    case.who[environment.type] = found.name
    known = f"{_NAMES[environment.type]} knows us as {found.name}; credentials: {found.source}"
    return Finding("identity", Verdict.OK, known)


def _access(case: Case, builder: KanikoBuilder) -> Finding:
    """How build pods read contexts: nothing is asked of the store where keys sign by themselves."""
    uri, read = builder.build_context_store, "build pods read contexts"
    own = f"{read} with an identity or a key of their own, which cannot be tried from here"
    if not signs(builder, endpoint(uri, case.machine.environment.get)):
        return Finding("context access", Verdict.OK, own)
    try:
        store_for(uri, region=store_region(case.config)).signed("probe", 1)
    except PermissionDenied as error:
        if builder.context_access is not None:
            raise
        message = f"{own}, since {machine()} may not sign URLs: {error.message}"
        return Finding("context access", Verdict.WARNING, message, error.hint)
    message = f"{read} by URLs that {machine()} signs, and need no identity for it"
    return Finding("context access", Verdict.OK, message)


def _store(uri: str, region: str | None) -> Finding:
    check(store_for(uri, region=region))
    return Finding(
        "context store", Verdict.OK, f"{uri}: a probe was stored, read and removed again"
    )
