"""What the AWS SDK raises, as errors of our own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import botocore.exceptions as sdk
import pytest
from botocore.loaders import Loader

from imagemill.clouds import aws
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)

RESOURCE = "arn:aws:s3:::bucket/key"


def answered(
    code: str,
    status: int = 400,
    message: str = "words",
    sent: int = 1,
    headers: Mapping[str, str] | None = None,
) -> sdk.ClientError:
    metadata: Any = {
        "HTTPStatusCode": status,
        "HTTPHeaders": headers or {},
        "RetryAttempts": sent - 1,
    }
    return sdk.ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, "PutObject"
    )


def translate(error: Exception, tries: int = 1) -> ImagemillError:
    with (
        pytest.raises(ImagemillError) as raised,
        aws.translated("s3:PutObject", RESOURCE, tries=tries),
    ):
        raise error
    assert raised.value.hint
    return raised.value


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answered("SlowDown", 503), TransientError),
        (answered("ThrottlingException"), TransientError),
        (answered("429", 429), TransientError),
        (answered("InternalError", 500), ServiceUnreachable),
        (answered("503", 503), ServiceUnreachable),
        (answered("RequestTimeout"), ServiceUnreachable),
        (answered("408", 408), ServiceUnreachable),
        (answered("OperationAborted", 409), ServiceUnreachable),
        (answered("ExpiredToken"), TransientError),
        (answered("BadDigest"), TransientError),
        (answered("NoSuchUpload", 404), TransientError),
        (answered("AccessDenied", 403), PermissionDenied),
        (answered("403", 403), PermissionDenied),
        (answered("SignatureDoesNotMatch", 403), OperatorError),
        (answered("RequestTimeTooSkewed", 403), OperatorError),
        (answered("NoSuchBucket", 404), UserError),
        (answered("PermanentRedirect", 301), UserError),
        (sdk.EndpointConnectionError(endpoint_url="https://s3"), ServiceUnreachable),
        (sdk.ConnectTimeoutError(endpoint_url="https://s3"), ServiceUnreachable),
        (sdk.ReadTimeoutError(endpoint_url="https://s3"), ServiceUnreachable),
        (sdk.ConnectionClosedError(endpoint_url="https://s3"), ServiceUnreachable),
        (sdk.IncompleteReadError(actual_bytes=1, expected_bytes=2), ServiceUnreachable),
        (
            sdk.SSLError(endpoint_url="https://s3", error=OSError("UNEXPECTED_EOF")),
            ServiceUnreachable,
        ),
        (
            sdk.SSLError(endpoint_url="https://s3", error=OSError("CERTIFICATE_VERIFY_FAILED")),
            OperatorError,
        ),
        (sdk.FlexibleChecksumError(error_msg="differs"), TransientError),
        (
            sdk.EndpointConnectionError(endpoint_url="https://s3.eu-central-1.amazonaws.com"),
            ServiceUnreachable,
        ),
        (
            sdk.EndpointConnectionError(endpoint_url="https://s3.eu-central-9.amazonaws.com"),
            UserError,
        ),
        (
            sdk.EndpointConnectionError(
                endpoint_url="https://api.ecr.cn-north-1.amazonaws.com.cn/"
            ),
            ServiceUnreachable,
        ),
        (sdk.NoRegionError(), UserError),
        (sdk.InvalidRegionError(region_name="no where"), UserError),
        (
            sdk.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
            OperatorError,
        ),
        (sdk.ProfileNotFound(profile="mill"), OperatorError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_known_error_is_of_the_kind_that_can_act(
    error: Exception, kind: type[ImagemillError]
) -> None:
    assert type(translate(error)) is kind


@pytest.mark.parametrize(
    "error", [answered("MalformedXML"), answered("404", 404), sdk.BotoCoreError(), KeyError("x")]
)
def test_unknown_error_goes_through_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, aws.translated("s3:PutObject", RESOURCE):
        raise error
    assert raised.value is error


TRIES = 6


@pytest.mark.parametrize("sent", [1, TRIES - 1, TRIES])
def test_only_what_was_sent_as_often_as_it_may_be_is_exhausted(sent: int) -> None:
    lost = sdk.ConnectionClosedError(endpoint_url="https://s3")
    aws._note_tries(attempts=sent, caught_exception=lost)
    for error in (answered("SlowDown", 503, sent=sent), answered("500", 500, sent=sent), lost):
        known = translate(error, tries=TRIES)
        assert isinstance(known, TransientError)
        assert known.exhausted == (sent == TRIES)


def test_single_call_is_never_exhausted() -> None:
    for error in (answered("SlowDown", 503), sdk.ConnectionClosedError(endpoint_url="https://s3")):
        known = translate(error)
        assert isinstance(known, TransientError)
        assert not known.exhausted


@pytest.mark.parametrize("code", ["ExpiredToken", "BadDigest", "NoSuchUpload"])
def test_what_another_try_of_the_sdk_would_not_mend_is_for_the_step(code: str) -> None:
    known = translate(answered(code, sent=TRIES), tries=TRIES)
    assert isinstance(known, TransientError)
    assert not known.exhausted


def test_refusal_names_what_aws_names() -> None:
    said = "User: arn:aws:iam::1:user/mill is not authorized to perform: s3:GetObject on resource: arn:aws:s3:::b/k."
    known = translate(answered("AccessDenied", 403, said))
    assert isinstance(known, PermissionDenied)
    assert (known.action, known.resource) == ("s3:GetObject", "arn:aws:s3:::b/k")
    assert known.hint == "allow s3:GetObject on arn:aws:s3:::b/k to arn:aws:iam::1:user/mill"


@pytest.mark.parametrize("said", ["Access Denied.", "", "not authorized"])
def test_refusal_without_names_is_told_with_what_was_tried(said: str) -> None:
    known = translate(answered("AccessDenied", 403, said))
    assert isinstance(known, PermissionDenied)
    assert (known.action, known.resource) == ("s3:PutObject", RESOURCE)


def test_role_that_may_not_be_taken_is_named() -> None:
    said = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
    known = translate(answered("AccessDenied", 403, said))
    assert isinstance(known, PermissionDenied)
    assert known.action == "sts:AssumeRoleWithWebIdentity"


@pytest.mark.parametrize(
    ("value", "seconds"), [("12", 12.0), ("", None), ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0)]
)
def test_time_to_wait_is_handed_on(value: str, seconds: float | None) -> None:
    known = translate(answered("SlowDown", 503, headers={"retry-after": value}))
    assert isinstance(known, TransientError)
    assert known.retry_after == seconds


def test_output_of_a_credential_process_is_not_repeated() -> None:
    known = translate(
        sdk.CredentialRetrievalError(provider="custom-process", error_msg="token=secret")
    )
    assert "secret" not in str(known)
    assert "credential_process" in known.message


def test_clients_are_kept_until_they_are_forgotten(aws_environment: pytest.MonkeyPatch) -> None:
    first = aws.client("s3", "eu-central-1")
    assert aws.client("s3", "eu-central-1") is first
    assert aws.client("s3", "us-west-2") is not first
    aws.forget()
    assert aws.client("s3", "eu-central-1") is not first


def test_what_describes_services_is_read_once_from_where_the_environment_says(
    aws_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def loader() -> Loader:
        aws.forget()
        session = aws.client("s3", "eu-central-1") and aws._session()
        found: Loader = session.get_component("data_loader")
        return found

    first = loader()
    assert loader() is first
    aws_environment.setenv("AWS_DATA_PATH", str(tmp_path))
    assert str(tmp_path) in loader().search_paths


def test_each_upload_has_a_client_of_its_own(aws_environment: pytest.MonkeyPatch) -> None:
    first, second = (aws.upload_client("eu-central-1", TRIES) for _ in range(2))
    assert first is not second
    assert first.meta.config.retries["total_max_attempts"] == TRIES
    assert aws.client("s3", "eu-central-1").meta.config.retries["total_max_attempts"] == 1
