"""Google Cloud: the default credentials, the client of its storage, and the errors of its SDK as
ours.

A call is sent once; whoever called it tries again (docs/adr/0011-one-layer-retries.md). One
exception lies in the SDK: a call whose token is not accepted (401) is sent once more with a new
one, since tokens may be revoked.
"""

# Most of Google's packages have no types.
# mypy: disable-error-code="import-untyped,no-untyped-call"

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from functools import cached_property
from typing import Any

import google.auth
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import Credentials, Signing
from google.auth.exceptions import (
    DefaultCredentialsError,
    GoogleAuthError,
    RefreshError,
    TransportError,
)
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from requests import ConnectionError as RequestsConnectionError
from requests import RequestException, Response, Timeout
from requests.exceptions import ChunkedEncodingError, SSLError
from urllib3.exceptions import HTTPError

from imagemill import authorities
from imagemill.clouds import Identity
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.per_process import per_process
from imagemill.place import machine
from imagemill.retry_after import retry_after_seconds
from imagemill.text import shortened

SCOPE = "https://www.googleapis.com/auth/cloud-platform"

TIMEOUT = (10.0, 60.0)
"""Seconds for a connection, and of silence, before a server counts as unreachable."""

RENEWAL = 600.0
"""Seconds before its end when a token is renewed: what is begun with it, such as a push, is to end
with it too.
"""

KNOWN = (
    GoogleAPICallError,
    GoogleAuthError,
    InvalidResponse,
    DataCorruption,
    RequestException,
    HTTPError,
)
"""The errors of Google's SDK and what it stands on; what `failure` does not know is let through."""

_BEGIN_ANEW = frozenset({200, 400, 404, 410})
"""Statuses that end an upload: stored, but damaged; found damaged; forgotten."""

_RATE_LIMITS = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
"""Reasons of a 403 that are none of permission:
https://cloud.google.com/storage/docs/json_api/v1/status-codes.
"""

_PERMISSION = re.compile(
    r"""Permission\ ['"](?P<denied>[\w.]+)['"]\ denied   # what IAM says
      | does\ not\ have\ (?P<lacked>[\w.]+)\ access      # what storage says
      | permission\ ['"](?P<anonymous>[\w.]+)['"]        # what requests without credentials are told
    """,
    re.VERBOSE,
)

_NO_CREDENTIALS = """\
No Google Cloud credentials were found. These were tried, in this order:
- the file that GOOGLE_APPLICATION_CREDENTIALS names: the variable is not set
- gcloud's application_default_credentials.json (in $CLOUDSDK_CONFIG or ~/.config/gcloud): there is no such file
- the metadata server of Compute Engine, GKE and Cloud Run ($GCE_METADATA_IP or 169.254.169.254): it does not answer"""
_NOT_FOUND = "Your default credentials were not found"


# --- Credentials ---


@dataclass(frozen=True)
class Token:
    """An access token; `expires` is its end in seconds since 1970, None if it has none."""

    text: str = field(repr=False)
    expires: float | None


class AccessTokens:
    """The access token of the default credentials, renewed before it ends. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._renewal = 0.0

    def current(self) -> Token:
        """Return a token that does not end soon: not within `RENEWAL`, or half of its life if that
        is less.

        `OperatorError` if there are no credentials, or Google does not accept them.
        """
        with self._lock:
            if self._token is None or time.time() >= self._renewal:
                self._token = _new_token()
                left = (self._token.expires or float("inf")) - time.time()
                self._renewal = time.time() + max(left - RENEWAL, left / 2)
            return self._token


def identity(region: str | None = None) -> Identity:
    """Whom Google takes the worker for, and where the credentials were found; they are tried by
    asking for a token.
    """
    _new_token()
    info = _credentials().get_cred_info() or {}
    kind = info.get("credential_type", "credentials of a kind that has no name")
    return Identity(info.get("principal") or kind, info.get("credential_source") or kind)


def _new_token() -> Token:
    credentials = _credentials()
    with translated("a token", "Google Cloud"):
        credentials.refresh(_TokenRequest())
    # google-auth's times are UTC and do not say so.
    expires = credentials.expiry.replace(tzinfo=UTC).timestamp() if credentials.expiry else None
    return Token(credentials.token or "", expires)


@per_process(1)
def _credentials() -> Credentials:
    """Return the default credentials. Finding them may take a while."""
    with translated("credentials", "Google Cloud"):
        credentials: Credentials = google.auth.default(scopes=[SCOPE])[0]
    return credentials


class TokenUnavailableError(RefreshError):
    """A token could not be asked for, for now."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason, retryable=True)
        self.retry_after = retry_after


class _TokenRequest(Request):
    """A question for a token: asked once.

    google-auth itself would ask a server that fails up to five times, for fifteen seconds, each
    time we ask it.
    """

    def __call__(self, url: str, *args: Any, **kwargs: Any) -> Any:
        try:
            answer = super().__call__(url, *args, **{"timeout": TIMEOUT, **kwargs})
        except TransportError as error:
            raise TokenUnavailableError(_reason(error.args[0])) from None
        if answer.status in (408, 429) or answer.status >= 500:
            raise TokenUnavailableError(
                f"the answer is {answer.status}",
                retry_after_seconds(answer.headers.get("Retry-After")),
            )
        return answer


# --- Storage ---


class _Client(storage.Client):  # type: ignore[misc]
    """Google's client, which finds its credentials, or its emulator, by itself."""

    SCOPE = (SCOPE,)

    def __init__(self) -> None:
        super().__init__(project=None)
        # For traces that nobody takes it would ask for the bucket, in a thread of its own and again
        # and again.
        self._bucket_metadata_cache = None

    @cached_property
    def _http(self) -> AuthorizedSession:
        session = AuthorizedSession(
            self._credentials, max_refresh_attempts=1, auth_request=_TokenRequest()
        )
        session.configure_mtls_channel()
        return session

    @property
    def session(self) -> AuthorizedSession:
        """For what the SDK has no call for."""
        return self._http


@per_process(1)
def client() -> _Client:
    """Return the client of this process."""
    with translated("credentials", "Google Cloud"):
        return _Client()


# --- Signatures ---

SIGN = "iam.serviceAccounts.signBlob"
"""The permission by which a service account signs where it has no key at hand: on itself."""


def signer() -> dict[str, Any]:
    """Return what the SDK signs URLs with: a key, or else Google's own signing service, by the
    service account that we are (https://cloud.google.com/iam/docs/create-short-lived-credentials-direct).

    `PermissionDenied` if we are none.
    """
    credentials = _credentials()
    if isinstance(credentials, Signing):
        return {"credentials": credentials}
    if getattr(credentials, "service_account_email", None) is None:
        raise PermissionDenied(
            f"{machine().capitalize()}'s credentials for Google Cloud are no service account's, and sign no URLs",
            f"run {machine()} as a service account, or set builder.context-access: identity",
            SIGN,
            f"{machine()}'s service account",
        )
    token = _new_token().text  # a machine's account is known by its address only after that
    email: str = credentials.service_account_email  # type: ignore[attr-defined]
    return {"credentials": credentials, "service_account_email": email, "access_token": token}


@contextmanager
def signing() -> Iterator[None]:
    """Raise the refusal of Google's signing service in the block as ours: it has no answer, but
    its words.
    """
    try:
        yield
    except TransportError as error:
        said = shortened(str(error))
        if "PERMISSION_DENIED" not in said:
            raise ServiceUnreachable(
                f"Google Cloud signs no URL: {said}", f"check {machine()}'s network"
            ) from None
        raise PermissionDenied(
            f"No permission {SIGN} for {machine()}'s service account: {said}",
            "grant the service account roles/iam.serviceAccountTokenCreator on itself, or set"
            " builder.context-access: identity",
            SIGN,
            f"{machine()}'s service account",
        ) from None


# --- Errors ---


@contextmanager
def translated(action: str, resource: str, *, retried: bool = False) -> Iterator[None]:
    """Raise the SDK's errors in the block as ours, those of them that we know.

    `action` is the permission that is needed, as IAM names it, and `resource` what it is needed on.
    `retried` says that the SDK has tried again what could be (`may_try_again`).
    """
    try:
        yield
    except KNOWN as error:
        told = failure(error, action, resource)
        if told is None:
            raise
        if isinstance(told, TransientError) and retried:
            told.exhausted = may_try_again(error)
        raise told from None  # requests' own words hold URLs by which anybody may go on with an upload


def may_try_again(error: Exception) -> bool:
    """Whether the same request may succeed later: not if the upload is to begin anew, though later
    it may succeed.
    """
    if not isinstance(error, KNOWN) or not isinstance(failure(error, "", ""), TransientError):
        return False
    response = getattr(error, "response", None)
    return not isinstance(response, Response) or response.status_code not in _BEGIN_ANEW


def failure(error: Exception, action: str, resource: str) -> ImagemillError | None:
    """Return the error of ours that says what one of `KNOWN` does; None for those that nobody has
    foreseen.
    """
    if isinstance(error, DataCorruption):
        return _damaged(resource)
    response = getattr(error, "response", None)
    if isinstance(response, Response):
        return _refusal(response, action, resource)
    if isinstance(error, GoogleAuthError):
        return _no_token(error)
    if isinstance(error, SSLError):
        return OperatorError(
            f"No TLS connection to Google Cloud for {resource}: the certificate is not trusted, or it is no TLS",
            authorities.HINT,
        )
    if isinstance(error, RequestsConnectionError | Timeout | ChunkedEncodingError | HTTPError):
        return ServiceUnreachable(
            f"Google Cloud did not answer {action} on {resource}: {_reason(error)}",
            f"check {machine()}'s network",
        )
    return None


def _refusal(response: Response, action: str, resource: str) -> ImagemillError | None:
    """Return the error for an answer that is not the wanted one."""
    status, said = response.status_code, _said(response)
    if _is_forgotten_upload(response):
        return TransientError(
            f"Google Cloud has forgotten the upload of {resource}", "it begins anew"
        )
    if status == 429 or (status == 403 and _reasons(response) & _RATE_LIMITS):
        return TransientError(
            f"Google Cloud has had too many requests for {resource}: {said}",
            "it limits requests for a time",
            retry_after_seconds(response.headers.get("Retry-After")),
        )
    if status == 408 or status >= 500:
        return ServiceUnreachable(
            f"Google Cloud answers {action} on {resource} with {said}",
            "see https://status.cloud.google.com",
            retry_after_seconds(response.headers.get("Retry-After")),
        )
    if status in (401, 403):
        return _denied(said, action, resource)
    if status == 400 and "doesn't match calculated" in said:
        return _damaged(resource)
    if status == 404:
        return UserError(f"Google Cloud has no {resource}: {said}", "check its name, or create it")
    return None


def _damaged(resource: str) -> TransientError:
    return TransientError(
        f"What was to be stored in {resource} was damaged on its way", "it is sent again"
    )


def permission_named(said: str) -> str | None:
    """Return the permission that is missing, where Google's words name it."""
    found = _PERMISSION.search(said)
    return next(filter(None, found.groups())) if found else None


def _denied(said: str, action: str, resource: str) -> OperatorError:
    named = permission_named(said)
    if named is None and said.startswith("401"):
        return OperatorError(
            f"Google Cloud does not accept {machine()}'s credentials: {said}", _sources_hint()
        )
    action = named or action
    return PermissionDenied(
        f"No permission {action} on {resource}: {said}",
        f"grant {machine()}'s service account a role that has {action}",
        action=action,
        resource=resource,
    )


def _no_token(error: GoogleAuthError) -> ImagemillError | None:
    """Return the error for credentials that are not there, or that Google gives no token for."""
    cause: object = error
    while isinstance(cause, Exception) and cause.args:
        cause = cause.args[
            0
        ]  # google-auth wraps one error into another; what follows the first argument are bodies
    reason = shortened(str(cause))
    if isinstance(error, DefaultCredentialsError):
        if reason.startswith(_NOT_FOUND):
            return OperatorError(_NO_CREDENTIALS, _sources_hint())
        return OperatorError(
            "The Google Cloud credentials that were found, in the file of GOOGLE_APPLICATION_CREDENTIALS or else in"
            f" gcloud's, cannot be used: {reason}",
            _sources_hint(),
        )
    if isinstance(error, TransportError) or error.retryable:
        told = "" if isinstance(error, TransportError) else reason
        retry_after = error.retry_after if isinstance(error, TokenUnavailableError) else None
        return ServiceUnreachable(
            f"Google Cloud gave no access token: {told or 'no answer'}",
            f"check {machine()}'s network",
            retry_after,
        )
    if isinstance(error, RefreshError):
        return OperatorError(
            f"Google Cloud does not accept {machine()}'s credentials: {reason}", _sources_hint()
        )
    return None


def _reason(error: object) -> str:
    """Why there was no answer, without the request's URL: that may hold an upload's secret."""
    if isinstance(error, Timeout):
        return "no answer in time"
    last = re.findall(
        r"\[Errno -?\d+\] ([\w ]+)|(Name or service not known|Failed to resolve)", str(error)
    )
    return next(
        (words for pair in reversed(last) for words in pair if words), "the connection broke off"
    )


def _said(response: Response) -> str:
    """Return the status, and the server's own words if it has any."""
    content = _content(response)
    words = content.get("message") if content else _text(response)
    return shortened(f"{response.status_code} {words or ''}")


def _reasons(response: Response) -> set[str]:
    return {
        str(entry.get("reason"))
        for entry in _content(response).get("errors", ())
        if isinstance(entry, dict)
    }


def _content(response: Response) -> dict[str, Any]:
    """Google's description of an error:
    https://cloud.google.com/storage/docs/json_api/v1/status-codes.
    """
    try:
        content = response.json()
    except ValueError:
        return {}
    error = content.get("error") if isinstance(content, dict) else None
    return error if isinstance(error, dict) else {}


def _text(response: Response) -> str:
    return (
        response.text if response.headers.get("Content-Type", "").startswith("text/plain") else ""
    )


def _is_forgotten_upload(response: object) -> bool:
    """https://cloud.google.com/storage/docs/resumable-uploads: a session that ended answers 404 or
    410.
    """
    if not isinstance(response, Response) or response.status_code not in (404, 410):
        return False
    return "upload_id=" in (response.request.url or "")


def _sources_hint() -> str:
    return (
        "set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file, run"
        " `gcloud auth application-default login`, or let"
        f" {machine()} run as a service account (on GKE by Workload Identity)"
    )
