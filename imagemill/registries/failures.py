"""What a registry or a token server says when it says no, as errors of our own.

Error codes: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes.
"""

from pydantic import BaseModel, ValidationError

from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
)
from imagemill.http import Answer, host_of
from imagemill.place import machine
from imagemill.reference import ImageReference
from imagemill.text import one_line

_ABSENT = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"})  # the last is Harbor's
_VERBS = {"pull": "pull from", "pull,push": "push to", "pull,push,delete": "delete from"}


class _Error(BaseModel):
    code: str
    message: str | None = None


class _Errors(BaseModel):
    errors: list[_Error]


def says_absent(answer: Answer) -> bool:
    """Whether a registry says that there is no such image or repository; a bare 404 may be
    anybody's.
    """
    return answer.status == 404 and any(error.code in _ABSENT for error in _errors(answer))


def denied(
    reference: ImageReference, actions: str, reason: str, fault: str = ""
) -> PermissionDenied:
    """Return the error where we may not do `actions` (of a token's scope) on the repository.

    `fault` says what could not be asked for credentials.
    """
    return PermissionDenied(
        f"No permission to {_VERBS[actions]} {reference.repository}: {reason}"
        f"{'; ' if fault else ''}{fault}",
        f"give {machine()} credentials for {reference.registry} that may {actions} {reference.path}:"
        " docker login, or a credential helper in docker's config.json",
        action=actions,
        resource=reference.repository,
    )


def failure(
    answer: Answer, reference: ImageReference, actions: str, fault: str = ""
) -> ImagemillError:
    """Return the error for an answer that is not what was asked for, of the registry or of its
    token server.
    """
    server = host_of(answer.url)
    words = "; ".join(f"{error.code} {error.message or ''}".strip() for error in _errors(answer))
    said = f"{answer.status} {one_line(words)}".strip()
    if answer.status in (401, 403):
        return denied(reference, actions, f"{server} answers {said}", fault)
    if answer.status == 429:
        hint = f"it limits requests, and allows more with credentials for {reference.registry}"
        return ServiceUnreachable(
            f"{server} has had too many requests: {said}", hint, answer.retry_after
        )
    if answer.status >= 500:
        return ServiceUnreachable(
            f"{server} answers {said}", "check that it is healthy", answer.retry_after
        )
    if answer.status >= 400 and _errors(answer):
        return OperatorError(
            f"{server} refuses what was asked of {reference}: {said}",
            "check the registry's settings",
        )
    return TransientError(
        f"{server} does not answer as a registry does: {said}, {answer.media_type or 'no content type'}",
        f"check that {reference.registry} is the host and port of a registry, and what is between",
    )


def _errors(answer: Answer) -> list[_Error]:
    try:
        return _Errors.model_validate_json(answer.body).errors
    except ValidationError:
        return []
