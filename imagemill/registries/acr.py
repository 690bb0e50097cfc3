"""Asks Azure container registries: the distribution API, with tokens of Azure's default credential
chain.

A token of Microsoft Entra ID is exchanged for a refresh token of the registry, which is what Docker
and Kaniko log in with: https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md. Repositories come
into being with the first push.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, NamedTuple
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imagemill.clouds.azure import claims, credentials
from imagemill.errors import PermissionDenied, TransientError
from imagemill.http import Answer, request
from imagemill.place import machine
from imagemill.ports import Credentials
from imagemill.reference import ImageReference
from imagemill.registries.authorization import Login
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.failures import failure
from imagemill.registries.oci import OciRegistry

SCOPE = "https://containerregistry.azure.net/.default"
"""What Entra's token is asked for, in each of Azure's clouds, as Microsoft's own clients do."""

USER = "00000000-0000-0000-0000-000000000000"
"""The user name that says that the password is a refresh token."""

LEAST = 15 * 60.0
"""Seconds that credentials are still good for when they are handed out, so that a push with them
comes to its end.
"""

_LEAST_PART = 0.1  # … and so much of their life, which is three hours at present

_PULL = ("Microsoft.ContainerRegistry/registries/pull/read", "AcrPull", "Reader")
_PUSH = ("Microsoft.ContainerRegistry/registries/push/write", "AcrPush", "Writer")
_DELETE = ("Microsoft.ContainerRegistry/registries/artifacts/delete", "AcrDelete", "Contributor")
"""The action, the least role that has it, and the one where roles are of repositories:
https://learn.microsoft.com/azure/container-registry/container-registry-rbac-built-in-roles-overview."""


class _Error(BaseModel):
    code: str
    message: str | None = None


class _Answer(BaseModel):
    """What the exchange, and the registry's server of tokens, answer."""

    model_config = ConfigDict(hide_input_in_errors=True)

    refresh_token: Annotated[str, Field(pattern=r"^[!-~]*$")] = ""
    access_token: Annotated[str, Field(pattern=r"^[!-~]*$")] = ""
    errors: list[_Error] = []


class _Kept(NamedTuple):
    credentials: Credentials
    renewal: float  # seconds since 1970


class RefreshTokens:
    """The source of credentials for registries of Azure: each has its refresh token, renewed before
    it ends.
    """

    def __init__(self, insecure: frozenset[str]) -> None:
        self._insecure = insecure
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()

    def login(self, repository: ImageReference) -> Login:
        """See `CredentialSource.login`."""
        return Login(self.credentials(repository.registry))

    def credentials(self, host: str) -> Credentials:
        """Credentials that are good for at least `LEAST` seconds, if the registry gives such."""
        with self._lock:
            kept = self._kept.get(host)
            if kept is None or kept.renewal <= time.time():
                kept = self._kept[host] = _lasting(self._exchange(host))
            return kept.credentials

    def access_token(self, reference: ImageReference, action: str) -> str:
        """Return a token for one action (`pull`, `push`, `delete`) on one repository."""
        refresh = self.credentials(reference.registry).identity_token
        scope = f"repository:{reference.path}:{action}"
        form = {"grant_type": "refresh_token", "refresh_token": refresh, "scope": scope}
        return self._ask(reference.registry, "oauth2/token", form).access_token

    def url(self, host: str, path: str) -> str:
        """Return the address of something that the registry has beside the distribution API."""
        return f"{'http' if host in self._insecure else 'https'}://{host}/{path}"

    def _exchange(self, host: str) -> str:
        token = credentials().get_token(SCOPE).token
        form = {
            "grant_type": "access_token",
            "access_token": token,
            "tenant": claims(token).get("tid", ""),
        }
        return self._ask(host, "oauth2/exchange", form).refresh_token

    def _ask(self, host: str, path: str, form: Mapping[str, str]) -> _Answer:
        body = urlencode({name: value for name, value in form.items() if value} | {"service": host})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = request("POST", self.url(host, path), headers, body.encode())
        try:
            said = _Answer.model_validate_json(answer.body)
        except ValidationError:
            said = _Answer()
        if answer.status in (401, 403):
            words = "; ".join(
                f"{error.code} {error.message or ''}".strip() for error in said.errors
            )
            raise PermissionDenied(
                f"{host} gives {machine()} no token: {answer.status} {words}".strip()
            )
        if answer.status != 200:
            raise failure(answer, ImageReference(host, path), "pull")
        if not (said.refresh_token or said.access_token):
            raise TransientError(f"{host} gives no token", "check that it is a registry of Azure")
        return said


class AzureRegistry(OciRegistry):
    """Registries of Azure. Docker's config is not looked into: the default credential chain is what
    is meant.
    """

    def __init__(self, docker_config: DockerConfig, insecure: frozenset[str] = frozenset()) -> None:
        self._tokens = RefreshTokens(insecure)
        super().__init__(self._tokens, insecure)

    def digest(self, reference: ImageReference) -> str | None:
        """See `Registry.digest`."""
        with _role(reference, *_PULL):
            return super().digest(reference)

    def tag(self, reference: ImageReference, tags: tuple[str, ...]) -> None:
        """See `Registry.tag`."""
        with _role(reference, *_PUSH):
            super().tag(reference, tags)

    def credentials(self, repository: ImageReference) -> Credentials | None:
        """See `Registry.credentials`."""
        with _role(repository, *_PUSH):
            return super().credentials(repository)

    def _lifetime(self, token: str, told: float | None) -> float:
        """Say what the token says: the answer does not."""
        return float(claims(token)["exp"]) - time.time()

    def delete(self, reference: ImageReference) -> None:
        """See `Registry.delete`; the image stays, and with it its other tags.

        The distribution API has no such thing:
        https://learn.microsoft.com/rest/api/containerregistry/tag/delete.
        """
        if reference.tag is None:
            raise ValueError(f"{reference} has no tag")
        with _role(reference, *_DELETE):
            token = self._tokens.access_token(reference, "delete")
            url = self._tokens.url(
                reference.registry, f"acr/v1/{reference.path}/_tags/{reference.tag}"
            )
            answer = request("DELETE", url, {"Authorization": f"Bearer {token}"})
            if answer.status in (401, 403):
                raise PermissionDenied(
                    f"{reference.registry} does not let {machine()} delete {reference}"
                )
            if answer.status not in (200, 202) and not _says_gone(answer):
                raise failure(answer, reference, "pull,push")


def _says_gone(answer: Answer) -> bool:
    """Whether the registry itself says that it has no such tag or repository: a bare 404 may be
    anybody's.
    """
    return answer.status == 404 and answer.media_type == "application/json"


def _lasting(refresh_token: str) -> _Kept:
    found = claims(refresh_token)
    now, expires = time.time(), float(found["exp"])
    left = max(LEAST, _LEAST_PART * (expires - now))
    # As password for those who log in with a user's name, as identity token for those who know what
    # that is.
    return _Kept(Credentials(USER, refresh_token, refresh_token, expires), expires - left)


@contextmanager
def _role(reference: ImageReference, action: str, role: str, of_repository: str) -> Iterator[None]:
    """Have a denial in the block name the role that Azure would grant the action by."""
    try:
        yield
    except PermissionDenied as error:
        hint = (
            f"give {machine()}'s identity the role {role} on the registry {reference.registry} (Container Registry"
            f" Repository {of_repository} where it grants by repository), and let its network rules allow {machine()}"
        )
        raise PermissionDenied(error.message, hint, action, reference.registry) from None
