"""Whether the registry can be asked, has the repository or may be given it, and lets us push."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urljoin

from imagemill.adapters import load
from imagemill.clouds.hosts import ECR
from imagemill.config import KanikoBuilder
from imagemill.doctor.examination import Case
from imagemill.doctor.findings import Finding, Verdict
from imagemill.http import is_loopback, origin, request, speaks_http
from imagemill.permissions import Party, Use, pushing_party, takes_push_role
from imagemill.place import machine
from imagemill.ports import PushRole, Registry
from imagemill.reference import ImageReference
from imagemill.registries import ADAPTERS, registry_for
from imagemill.registries.authorization import Authorizations, Login
from imagemill.registries.failures import failure, says_absent
from imagemill.registries.oci import endpoint

_PUSH = "pull,push"
_NOT_OURS = Finding(
    "credentials",
    Verdict.WARNING,
    "build pods push with credentials of their own, which cannot be tried from here",
    "`imagemill permissions` prints what they need",
)


def examine(case: Case) -> Iterator[Finding]:
    """All findings of the registry that the config pushes to."""
    destination = case.config.builder.destination
    if destination is None:
        yield Finding(
            "registry",
            Verdict.WARNING,
            "the config names no destination, so every build has to",
            "set builder.destination, or give --destination REGISTRY/REPOSITORY",
        )
        return
    repository = ImageReference.parse_destination(destination)
    yield case.checked("registry", lambda: _registry(case, repository), Use.FIND_IMAGES)
    if case.config.builder.type == "noop":
        return
    if ECR.fullmatch(repository.registry):
        yield case.checked("repository", lambda: _repository(case, repository), Use.MAKE_REPOSITORY)
    if pushing_party(case.config) is Party.BUILD_POD:
        yield _NOT_OURS
        if case.config.builder.graft is not False:
            yield _graft(case, repository)
    else:
        yield case.checked("credentials", lambda: _credentials(case, repository), Use.PUSH_IMAGES)
    if takes_push_role(case.config):
        yield case.checked("push role", lambda: _push_role(case, repository), Use.ASSUME_ROLE)


def _adapter(case: Case, repository: ImageReference) -> Registry:
    machine = case.machine
    return registry_for(
        repository, docker_config=machine.docker_config, insecure=machine.insecure_registries
    )


def _registry(case: Case, repository: ImageReference) -> Finding:
    _adapter(case, repository).digest(repository)
    return Finding("registry", Verdict.OK, f"{repository.registry} answers for {repository.path}")


def _repository(case: Case, repository: ImageReference) -> Finding:
    """Whether the repository is there. ECR alone has them made before they are pushed to; a doctor
    makes nothing.
    """
    if load(ADAPTERS, "ecr", "registry")().has(repository):
        return Finding("repository", Verdict.OK, f"{repository.path} is there")
    return Finding(
        "repository",
        Verdict.WARNING,
        f"{repository.path} is not there yet: the first build makes it. Whether it may cannot be known before, since"
        " ECR has no way of asking that makes nothing",
        "make it now, or see that this is granted",
        case.granting("ecr:CreateRepository", Use.MAKE_REPOSITORY),
    )


def _credentials(case: Case, repository: ImageReference) -> Finding:
    registry, host = _adapter(case, repository), repository.registry
    credentials = registry.credentials(repository)
    pushes = may_push(repository, registry, case.machine.insecure_registries)
    if not pushes and not ECR.fullmatch(host):
        return Finding(
            "repository",
            Verdict.FAILED,
            f"{host} has no repository {repository.path}, and makes none when it is pushed to",
            "make it there",
        )
    if credentials is None:
        return Finding(
            "credentials",
            Verdict.WARNING,
            f"there are none for {host}, so pushes are anonymous",
            f"if the registry wants a login: docker login {host}",
        )
    end = (
        f", until {datetime.fromtimestamp(credentials.expires, UTC):%H:%M} UTC"
        if credentials.expires
        else ""
    )
    known = f"there are some for {host}{end}"
    if not pushes:
        message = f"{known}; as long as there is no repository, no push can be tried"
        return Finding("credentials", Verdict.WARNING, message)
    return Finding("credentials", Verdict.OK, f"{known}, and they {_may_push(repository)}")


def _graft(case: Case, repository: ImageReference) -> Finding:
    """Whether the worker may push what it makes without a builder; builds can do without that."""

    def find() -> Finding:
        registry = _adapter(case, repository)
        if may_push(repository, registry, case.machine.insecure_registries):
            message = f"changes of code need no builder: {machine()} {_may_push(repository)}"
            return Finding("graft", Verdict.OK, message)
        message = f"{repository.registry} has no repository {repository.path} yet, so no push can be tried"
        return Finding("graft", Verdict.WARNING, message)

    found = case.checked("graft", find, Use.GRAFT)
    if found.verdict is not Verdict.FAILED:
        return found
    message = f"changes of code need a builder, too: {found.message}"
    return replace(found, verdict=Verdict.WARNING, message=message)


def _push_role(case: Case, repository: ImageReference) -> Finding:
    builder = case.config.builder
    assert isinstance(builder, KanikoBuilder)
    role = PushRole(builder.push_role or "", "imagemill-doctor")
    _adapter(case, repository).push_token(repository, role=role)
    message = f"{role.name} gives logins for {repository.path} alone"
    return Finding("push role", Verdict.OK, message)


def _may_push(repository: ImageReference) -> str:
    """Return what is known once a layer could be announced."""
    if ECR.fullmatch(repository.registry):
        return (
            f"may begin a push to {repository.path} (ecr:InitiateLayerUpload); the other actions of a push cannot be"
            " tried without one"
        )
    return f"may push to {repository.path}"


def may_push(repository: ImageReference, registry: Registry, insecure: frozenset[str]) -> bool:
    """Whether a push may begin, of which nothing is left there; False if the registry says that there
    is no such repository.

    A push begins with the announcement of a layer. Most registries let whoever may announce one do the
    rest as well, since it is one right of a token's scope, `push`. ECR asks for another permission at
    each step, and here for no more than `ecr:InitiateLayerUpload`. The upload that is opened is
    cancelled; where a registry cannot do that, it ends by itself after a while.
    https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-blobs

    `PermissionDenied` if it is refused, `ServiceUnreachable` if there is no clear answer.
    """
    authorizations = Authorizations(_OwnLogin(repository, registry), insecure)
    host = repository.registry
    plain = host in insecure or (is_loopback(host) and speaks_http(host))
    url = f"{'http' if plain else 'https'}://{endpoint(host)}/v2/{repository.path}/blobs/uploads/"
    answer = request("POST", url, {}, b"", authorizations.reach)
    login: dict[str, str] = {}
    if answer.status == 401:
        login = authorizations.renew(answer, repository, _PUSH)
        answer = request("POST", url, login, b"", authorizations.reach)
    if says_absent(answer):
        return False
    if answer.status != 202:
        raise failure(answer, repository, _PUSH)
    location = urljoin(url, answer.headers.get("Location", ""))
    if origin(location) == origin(url) and location != url:
        request("DELETE", location, login)
    return True


class _OwnLogin:
    """The credentials that the registry's adapter has for the repository."""

    def __init__(self, repository: ImageReference, registry: Registry) -> None:
        self._repository, self._registry = repository, registry

    def login(self, repository: ImageReference) -> Login:
        return Login(self._registry.credentials(self._repository))
