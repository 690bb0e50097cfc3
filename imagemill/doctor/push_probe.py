"""Tries whether one may begin a push to a repository, and leaves nothing there.

A push begins with the announcement of a layer. Most registries let whoever may announce one do the
rest as well, since it is one right of a token's scope, `push`. ECR asks for another permission at
each step, and here for no more than `ecr:InitiateLayerUpload`. The upload that is opened is
cancelled; where a registry cannot do that, it ends by itself after a while.
https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-blobs
"""

from urllib.parse import urljoin

from imagemill.http import is_loopback, origin, request, speaks_http
from imagemill.ports import Registry
from imagemill.reference import ImageReference
from imagemill.registries.authorization import Authorizations, Login
from imagemill.registries.failures import failure, says_absent
from imagemill.registries.oci import endpoint

_ACTIONS = "pull,push"


def may_push(repository: ImageReference, registry: Registry, insecure: frozenset[str]) -> bool:
    """Whether a layer may be announced; False if the registry says that there is no such
    repository.

    `PermissionDenied` if it is refused, `ServiceUnreachable` if there is no clear answer.
    """
    authorizations = Authorizations(_Source(repository, registry), insecure)
    host = repository.registry
    plain = host in insecure or (is_loopback(host) and speaks_http(host))
    url = f"{'http' if plain else 'https'}://{endpoint(host)}/v2/{repository.path}/blobs/uploads/"
    answer = request("POST", url, {}, b"", authorizations.reach)
    login: dict[str, str] = {}
    if answer.status == 401:
        login = authorizations.renew(answer, repository, _ACTIONS)
        answer = request("POST", url, login, b"", authorizations.reach)
    if says_absent(answer):
        return False
    if answer.status != 202:
        raise failure(answer, repository, _ACTIONS)
    location = urljoin(url, answer.headers.get("Location", ""))
    if origin(location) == origin(url) and location != url:
        request("DELETE", location, login)
    return True


class _Source:
    """The credentials that the registry's adapter has for the repository."""

    def __init__(self, repository: ImageReference, registry: Registry) -> None:
        self._repository, self._registry = repository, registry

    def login(self, repository: ImageReference) -> Login:
        return Login(self._registry.credentials(self._repository))
