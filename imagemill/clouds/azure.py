"""Azure: the default credential chain, who we are there, and the errors of its SDK as errors of
ours.

A call is sent once; whoever called it tries again (docs/adr/0011-one-layer-retries.md).
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jwt
from azure.core.credentials import AccessToken, TokenCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline import PipelineResponse
from azure.identity import CredentialUnavailableError, DefaultAzureCredential

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

STORAGE_SCOPE = "https://storage.azure.com/.default"
"""What tokens for Blob storage are asked for, in each of Azure's clouds."""

STORAGE_ROLE = "Storage Blob Data Contributor"
"""The role that allows all that a context store does."""

_SETTINGS_HINT = (
    "mend what it is about (an empty variable counts as set): AZURE_TOKEN_CREDENTIALS, AZURE_AUTHORITY_HOST,"
    " AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, AZURE_CLIENT_CERTIFICATE_PATH or"
    " AZURE_FEDERATED_TOKEN_FILE"
)
_UNUSABLE = (ValueError, OSError)
"""What the SDK raises for settings that make no sense, and for files that it cannot read."""


# "A transient error", says
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes of these.
_ENTRA_TRANSIENT = re.compile(r"AADSTS(90033|90024|90006|50033)\b|temporarily_unavailable")

_WRONG_CREDENTIALS = frozenset(
    {"AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation"}
)
_NO_CONTAINER = frozenset({"ContainerNotFound", "ContainerBeingDeleted"})

_DAMAGED = re.compile(r"Md5Mismatch|contentMD5 doesn't match")
"""Azure's code, and what its emulator says."""

_TOKEN_DETAIL = re.compile(r"authenticationerrordetail:(.*)", re.IGNORECASE)
"""What Azure has against a token: it is in the body of an answer, of which the SDK makes a line."""


# --- Credentials ---


class _Attempt(NamedTuple):
    source: str
    error: AzureError | ValueError | OSError


class _Source:
    """One source of the chain, which notes how it went: of the errors the chain itself keeps
    nothing but text.
    """

    def __init__(self, source: TokenCredential, chain: "CredentialChain") -> None:
        self._source, self._chain = source, chain
        # A source that could not be made has a stand-in, which has its name here; the SDK's log
        # tells it too.
        self._credential_name: str = getattr(source, "_credential_name", type(source).__name__)

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        try:
            token = self._source.get_token(*scopes, **options)
        except (AzureError, *_UNUSABLE) as error:
            self._chain.attempts.append(_Attempt(self._credential_name, error))
            raise
        self._chain.answered = self._credential_name
        return token


class CredentialChain:
    """`DefaultAzureCredential()`, whose failures are errors of ours: a credential for the SDK.
    Threads may share it.

    `OperatorError` if it cannot be made of the settings in the environment.
    """

    def __init__(self) -> None:
        self.attempts: list[_Attempt] = []
        self.answered = ""
        """The source that gave the last token: the chain keeps to it."""
        self._refusal: Any = None
        self._lock = threading.Lock()
        try:
            self._chain = DefaultAzureCredential(retry_total=0, raw_response_hook=self._note)
        except _UNUSABLE as error:
            raise _unusable(error) from None
        self._chain.credentials = tuple(_Source(source, self) for source in self._chain.credentials)  # type: ignore[arg-type]

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Return a token, kept by the SDK while it is valid; `OperatorError` lists the sources if
        there are no credentials.
        """
        with self._lock:
            self.attempts.clear()
            try:
                token = self._chain.get_token(*scopes, **options)
            except (ClientAuthenticationError, ServiceRequestError, ServiceResponseError):
                raise self._no_token() from None
            self._refusal = None
            return token

    def _note(self, response: PipelineResponse[Any, Any]) -> None:
        """Keep an answer that says no: of those without Entra's own words for it the SDK tells
        nothing.
        """
        if response.http_response.status_code >= 400:
            self._refusal = response.http_response

    def _no_token(self) -> ImagemillError:
        source, error = self.attempts[-1]
        if not isinstance(error, AzureError):
            return _unusable(error)
        told = _told(error.message)
        if not isinstance(error, CredentialUnavailableError):
            return _busy(self._refusal, f"Microsoft Entra ID (for {source})", told) or _refused(
                source, error
            )
        if self.answered:  # it has given tokens before, so it is not the setting up that is wrong
            return TransientError(
                f"{source} gives no more tokens: {told}", "check that it is healthy"
            )
        tried = "\n".join(
            f"- {name}: {_told(str(error).removeprefix(f'{name} '))}"
            for name, error in self.attempts
        )
        words = f"No Azure credentials were found. These were tried, in this order:\n{tried}"
        return OperatorError(
            words,
            f"give {machine()} a managed identity or a workload identity, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and"
            " AZURE_CLIENT_SECRET; AZURE_AUTHORITY_HOST as well outside of Azure's public cloud",
        )


@per_process(1)
def credentials() -> CredentialChain:
    """Return the default credential chain of this process."""
    return CredentialChain()


def claims(token: str) -> dict[str, Any]:
    """Return what a token says of its holder. It is not checked: whom it is for does that."""
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def identity(region: str | None = None) -> Identity:
    """Whom Azure takes the worker for, and which source of the chain said so; a token is asked for
    to find out.

    The name is a user's principal name, or else the object id of the service principal or managed
    identity.
    """
    chain = credentials()
    found = claims(chain.get_token(STORAGE_SCOPE).token)
    name = next(
        found[claim] for claim in ("upn", "unique_name", "oid", "appid", "sub") if claim in found
    )
    return Identity(name, chain.answered)


def _unusable(error: ValueError | OSError) -> OperatorError:
    """Return the error for wrong settings of the credentials."""
    return OperatorError(
        f"The Azure credentials cannot be used: {_told(str(error))}", _SETTINGS_HINT
    )


def _refused(source: str, error: AzureError) -> ImagemillError:
    """Why a source that has credentials gave no token for them."""
    told = _told(error.message)
    for cause in _causes(error):
        if isinstance(cause, ServiceRequestError | ServiceResponseError):
            return _no_answer(cause, f"Microsoft Entra ID (for {source})")
    if _ENTRA_TRANSIENT.search(error.message):
        return TransientError(f"{source} gets no token for now: {told}", "it passes by itself")
    return OperatorError(
        f"{source} gets no token for its credentials: {told}",
        f"check tenant, client and secret (or federated credential) of {machine()}; other sources are not tried then",
    )


def _causes(error: BaseException | None) -> Iterator[AzureError]:
    """Yield the error, and those of the SDK that it came from."""
    while error is not None:
        if isinstance(error, AzureError):
            yield error
        error = error.__cause__


# --- Errors ---


@contextmanager
def translated(action: str, resource: str, *, retried: bool = False) -> Iterator[None]:
    """Raise what Blob storage and the way to it answer in the block as errors of ours; what is not
    known goes through.

    `action` is what Azure calls it (`Microsoft.Storage/…/blobs/write`), `resource` is the
    container's URL. `retried` says that the SDK has tried again already what it takes for
    transient.
    """
    try:
        yield
    except (HttpResponseError, ServiceRequestError, ServiceResponseError) as error:
        failure = _unavailable(error, resource)
        if isinstance(failure, TransientError):
            failure.exhausted = retried
        if failure is None and isinstance(error, HttpResponseError):
            failure = _rejected(error, action, resource)
        if failure is None:
            raise
        raise failure from None


def _unavailable(
    error: HttpResponseError | ServiceRequestError | ServiceResponseError, what: str
) -> ImagemillError | None:
    """Return the error if time may mend it: no answer, or one that says so; or if the connection
    cannot be trusted.
    """
    if not isinstance(error, HttpResponseError):
        return _no_answer(error, what)
    if error.response is None:
        return ServiceUnreachable(
            f"{what} breaks off its answer: {_told(error.message)}", "check the network to it"
        )
    return _busy(error.response, what, _words(error))


def _busy(answer: Any, what: str, told: str) -> ImagemillError | None:
    """Return the error for an answer that says that it may be another one later."""
    if answer is None or (answer.status_code < 500 and answer.status_code not in (408, 429)):
        return None
    wait = retry_after_seconds(answer.headers.get("Retry-After"))
    if answer.status_code == 429:
        return TransientError(
            f"{what} has had too many requests: {told}", "it limits requests", wait
        )
    return ServiceUnreachable(
        f"{what} answers {answer.status_code} {told}", "see https://azure.status.microsoft", wait
    )


def _no_answer(error: AzureError, what: str) -> ImagemillError:
    reason = _told(error.message)
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return OperatorError(
            f"The certificate of {what} is not trusted",
            authorities.HINT,
        )
    host = re.search(r"host='([^']+)'", error.message)
    named = f"{what} cannot be reached" + (f" at {host[1]}" if host and host[1] not in what else "")
    cause = re.search(
        r"Failed to resolve|Connection refused|timed out|timeout|Connection aborted|reset", reason
    )
    return ServiceUnreachable(
        f"{named}: {cause[0] if cause else reason}",
        "check the name, the network, and HTTPS_PROXY if there is one",
    )


def _rejected(error: HttpResponseError, action: str, resource: str) -> ImagemillError | None:
    """Return the error for an answer that says no, if it is a known one."""
    code, told = error_code(error), _words(error)
    if _may_have_expired(error, code):
        return TransientError(
            f"{resource} does not take the token any more: {told}",
            f"if it stays so, check {machine()}'s clock, and that the token is of the account's tenant",
        )
    if code in _WRONG_CREDENTIALS:
        return OperatorError(
            f"{resource} does not accept the credentials: {told}",
            f"check that they are of the account's tenant (or the account key is right), and {machine()}'s clock",
        )
    if code in _NO_CONTAINER:
        return UserError(
            f"There is no container {resource}: {told}",
            "create it, or mend builder.build-context-store",
        )
    if _DAMAGED.search(told):
        return TransientError(
            f"What was sent to {resource} arrived damaged: {told}", "check the network to it"
        )
    if error.status_code in (401, 403):
        return PermissionDenied(
            f"Azure denies {action} on {resource}: {told}",
            f"give {machine()}'s identity the role {STORAGE_ROLE!r} on the container"
            f" (it takes minutes to act), and let the account's network rules allow {machine()}",
            action,
            resource,
        )
    return None


def _may_have_expired(error: HttpResponseError, code: str) -> bool:
    """Whether it is the token's age that is refused. An answer without a body, as to a HEAD, does
    not say why.
    """
    detail = _TOKEN_DETAIL.search(error.message)
    if detail:
        return "expired" in detail[1]
    return error.status_code == 401 and (
        code == "InvalidAuthenticationInfo" or not (code or _has_body(error))
    )


def _has_body(error: HttpResponseError) -> bool:
    answer: Any = error.response
    return answer.request.method != "HEAD" and bool(answer.body())


def error_code(error: HttpResponseError) -> str:
    """Blob storage's own code for an error:
    https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes.

    It is in a header too, since answers to HEAD have no body.
    """
    answer: Any = error.response
    code = getattr(error, "error_code", None) or (answer and answer.headers.get("x-ms-error-code"))
    return str(getattr(code, "value", code or ""))


def _words(error: HttpResponseError) -> str:
    code, said = error_code(error), _told(error.message)
    return said if not code or code in said else f"{code}: {said}"


def _told(text: str) -> str:
    """Return the first line of what an SDK says, as far as it is for people."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return shortened(line)
