"""Logging in at registries, as they ask for it: Basic, or a token for each repository and action.

The token protocol: https://distribution.github.io/distribution/spec/auth/token/, and with identity
tokens https://distribution.github.io/distribution/spec/auth/oauth/.
"""

import base64
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, NamedTuple, Protocol
from urllib.parse import urlencode

import re2  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imagemill.addresses import Reach
from imagemill.errors import OperatorError, TransientError
from imagemill.http import (
    Answer,
    host_of,
    is_loopback,
    is_url,
    origin,
    registries,
    request,
)
from imagemill.ports import Credentials
from imagemill.reference import ImageReference
from imagemill.registries.failures import denied, failure

_CLIENT_ID = "imagemill"
_LIFETIME = 60.0  # seconds, of a token that does not say
_SCOPES = 8  # that a token is asked with
_MARGIN = 0.9  # part of its lifetime in which a token is used, so that it does not end on its way

_PARAMETER = r'[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s",]+)'
_CHALLENGE = re2.compile(rf"([A-Za-z][\w-]*)\s+({_PARAMETER}(?:\s*,\s*{_PARAMETER})*)")
_VALUE = re2.compile(r'([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')
_ESCAPED = re2.compile(r"\\(.)")
_CHALLENGES_LIMIT = 16 << 10
"""Characters of WWW-Authenticate that are read. The patterns are tried at each of them."""


class Login(NamedTuple):
    """What there is to log in with."""

    credentials: Credentials | None
    """None for anonymous use."""
    fault: str = ""
    """What could not be asked for credentials, if something could not: told if the registry
    refuses.
    """


class CredentialSource(Protocol):
    """Where credentials come from: Docker's config, or a cloud's own."""

    def login(self, repository: ImageReference) -> Login:
        """Return what to log in with for a repository."""


class _Token(BaseModel):
    """A token server's answer; OAuth2 calls the token `access_token`. It becomes a header, hence
    the pattern.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    token: Annotated[str, Field(pattern=r"^[!-~]*$")] = ""
    access_token: Annotated[str, Field(pattern=r"^[!-~]*$")] = ""
    expires_in: float | None = None

    @property
    def text(self) -> str:
        return self.token or self.access_token


class _Grant(NamedTuple):
    header: str
    expires: float  # time.monotonic


class Authorizations:
    """The `Authorization` headers that were obtained, each for one repository and its actions."""

    def __init__(self, source: CredentialSource, insecure: frozenset[str]) -> None:
        self.reach = registries(insecure)
        self._source = source
        self._insecure = insecure
        self._grants: dict[tuple[str, str, str], _Grant] = {}
        self._logins: dict[str, Login] = {}

    def headers(self, reference: ImageReference, actions: str, pulled: str = "") -> dict[str, str]:
        """Return the header to send, if there is one that is still valid, for the actions and for
        pulling from the repository with the path `pulled`, too.
        """
        grant = self._grants.get((reference.repository, actions, pulled))
        return {"Authorization": grant.header} if grant and grant.expires > time.monotonic() else {}

    def login(self, reference: ImageReference) -> Login:
        """Return what the repository was logged in with last."""
        return self._logins.get(reference.repository, Login(None))

    def renew(
        self, refusal: Answer, reference: ImageReference, actions: str, pulled: str = ""
    ) -> dict[str, str]:
        """Return the header that the registry asks for in its answer 401; `PermissionDenied` if it
        is not to be had.
        """
        challenges = parse_challenges(refusal.headers.getlist("WWW-Authenticate"))
        login = self._logins[reference.repository] = self._source.login(reference)
        credentials, registry = login.credentials, reference.registry
        if "bearer" in challenges and credentials and credentials.registry_token:
            grant = _Grant(f"Bearer {credentials.registry_token}", float("inf"))
        elif "bearer" in challenges:
            own = [f"repository:{reference.path}:{actions}"]
            own += [f"repository:{pulled}:pull"] if pulled else []
            grant = self._token(challenges["bearer"], login, refusal, reference, own)
        elif "basic" in challenges:
            if credentials is None or not credentials.username:
                reason = f"{registry} wants a user and a password"
                raise denied(reference, actions, reason, login.fault)
            grant = _Grant(_basic(credentials), float("inf"))
        else:
            raise denied(reference, actions, f"{registry} does not say how to log in", login.fault)
        now = time.monotonic()
        self._grants = {key: old for key, old in list(self._grants.items()) if old.expires > now}
        self._grants[reference.repository, actions, pulled] = grant
        return {"Authorization": grant.header}

    def scoped(
        self, refusal: Answer, reference: ImageReference, scopes: list[str], login: Login
    ) -> tuple[str, float | None] | None:
        """Return a token for these scopes alone, and for how many seconds it is said to last; None
        where the registry that refused names no server of tokens.
        """
        challenge = parse_challenges(refusal.headers.getlist("WWW-Authenticate")).get("bearer")
        if challenge is None:
            return None
        realm = challenge.get("realm", "")
        reach = self._realm_reach(realm, refusal, reference)
        service = challenge.get("service", "")
        answer = _ask_for_token(realm, service, scopes, login.credentials, reach)
        if answer.status != 200:
            raise failure(answer, reference, "pull,push", login.fault)
        token = _read_token(answer, reference)
        return token.text, token.expires_in

    def _token(
        self,
        challenge: Mapping[str, str],
        login: Login,
        refusal: Answer,
        reference: ImageReference,
        own: list[str],
    ) -> _Grant:
        realm = challenge.get("realm", "")
        reach = self._realm_reach(realm, refusal, reference)
        # What the registry asks for may be less than what we are about to do, or be something
        # besides it.
        others = [
            scope
            for scope in challenge.get("scope", "").split()
            if _resource(scope) not in map(_resource, own)
        ]
        scopes = [*own, *others][:_SCOPES]
        service = challenge.get("service", "")
        answer = _ask_for_token(realm, service, scopes, login.credentials, reach)
        if answer.status != 200:
            raise failure(answer, reference, own[0].rpartition(":")[2], login.fault)
        token = _read_token(answer, reference)
        # Counted from now, not from `issued_at`: that takes two clocks. A token that ends early is
        # asked for again.
        lifetime = token.expires_in if token.expires_in is not None else _LIFETIME
        return _Grant(f"Bearer {token.text}", time.monotonic() + _MARGIN * lifetime)

    def _realm_reach(self, realm: str, refusal: Answer, reference: ImageReference) -> Reach:
        """Where the token server may be: the registry itself, or what it may lead to.

        Credentials go over plain HTTP only where the registry does, or on this machine.
        """
        plain = refusal.url.startswith("http:")
        if not is_url(realm):
            raise TransientError(
                f"{reference.registry} asks for a token but not where to get it",
                "check the registry's token realm",
            )
        host = host_of(realm)
        if realm.startswith("http:") and not (plain or host in self._insecure or is_loopback(host)):
            raise OperatorError(
                f"{reference.registry} wants credentials to be sent to {host} without TLS",
                "let the registry name an https realm, or add"
                f" {host} to IMAGEMILL_INSECURE_REGISTRIES",
            )
        return self.reach if origin(realm) == origin(refusal.url) else refusal.beyond


def parse_challenges(headers: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the parameters of the challenges in `WWW-Authenticate` (RFC 9110, section 11.6.1), by
    scheme in lower case.
    """
    return {
        scheme.lower(): {
            name.lower(): _ESCAPED.sub(r"\1", quoted) or bare
            for name, quoted, bare in _VALUE.findall(parameters)
        }
        for header in _first(headers)
        for scheme, parameters in _CHALLENGE.findall(header)
    }


def _first(headers: Iterable[str]) -> Iterator[str]:
    left = _CHALLENGES_LIMIT
    for header in headers:
        yield header[:left]
        left -= len(header[:left])


def _ask_for_token(
    realm: str, service: str, scopes: list[str], credentials: Credentials | None, reach: Reach
) -> Answer:
    if credentials and credentials.identity_token:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": credentials.identity_token,
            "service": service,
            "client_id": _CLIENT_ID,
            "scope": " ".join(scopes),
        }
        return request(
            "POST",
            realm,
            {"Content-Type": "application/x-www-form-urlencoded"},
            urlencode(form).encode(),
            reach,
        )
    query = urlencode([("service", service), *(("scope", scope) for scope in scopes)])
    separator = "&" if "?" in realm else "?"
    return request(
        "GET",
        f"{realm}{separator}{query}",
        {"Authorization": _basic(credentials)} if credentials else {},
        reach=reach,
    )


def _read_token(answer: Answer, reference: ImageReference) -> _Token:
    try:
        token = _Token.model_validate_json(answer.body)
    except ValidationError:
        token = _Token()
    if not token.text:
        raise TransientError(
            f"The token server {host_of(answer.url)} of {reference.registry} gives no token",
            "check that the registry's token realm is a token server",
        )
    return token


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _resource(scope: str) -> str:
    """Return a scope without its actions: `repository:PATH` of `repository:PATH:pull`."""
    return scope.rpartition(":")[0]
