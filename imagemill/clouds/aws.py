"""Amazon Web Services: boto3's default chain of credentials, its clients, and its errors as our
own.

Where keys, regions and endpoints come from is the SDK's own affair (`AWS_*`, `~/.aws`, roles):
nothing of it is read here. A call is sent once, and tried again by the step that made it; only the
parts of an upload are tried again here.
"""

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, cast

import botocore.exceptions as sdk
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError
from botocore.session import Session

from imagemill import authorities
from imagemill.clouds import Identity
from imagemill.clouds.hosts import wants_virtual_hosts
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

CONNECT_TIMEOUT, READ_TIMEOUT = 10, 60
"""Seconds that a server has to take a connection, and to go on with an answer."""

Addressing = Literal["path", "virtual"]
"""Where a bucket's name stands in a URL of S3: in its path, or in its host."""

_DEFAULT_REGION = "us-east-1"
_SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "env": "the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "assume-role": "a role_arn of the profile (AWS_PROFILE) in ~/.aws/config",
        "assume-role-with-web-identity": "web identity: AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN",
        "sso": "an sso_session of the profile: aws sso login",
        "shared-credentials-file": "the file ~/.aws/credentials (AWS_SHARED_CREDENTIALS_FILE)",
        "login": "a login_session of the profile: aws login",
        "custom-process": "a credential_process of the profile",
        "config-file": "keys in the file ~/.aws/config (AWS_CONFIG_FILE)",
        "ec2-credentials-file": "the file that AWS_CREDENTIAL_FILE names",
        "boto-config": "the file /etc/boto.cfg or ~/.boto",
        "container-role": "the container: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI (ECS, EKS Pod Identity)",
        "iam-role": "the metadata of the instance (EC2), unless AWS_EC2_METADATA_DISABLED is set",
    }
)
"""botocore's name of each source of credentials → where that is."""

_DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "AllAccessDisabled", "UnauthorizedOperation"}
)
_WRONG_KEY = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotSignedUp",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_WRONG_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"})
_EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
)
_THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_DOWN = frozenset(
    {
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServerException",
    }
)
_DAMAGED = frozenset(
    {"BadDigest", "IncompleteBody", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
)
_LOST = (
    sdk.ConnectionError,
    sdk.HTTPClientError,
    sdk.IncompleteReadError,
    sdk.ResponseStreamingError,
)
_NO_BUCKET = frozenset({"InvalidBucketName", "NoSuchBucket"})
_ELSEWHERE = frozenset(
    {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
)

# User: arn:aws:iam::123456789012:user/mill is not authorized to perform: ecr:DescribeImages on
# resource: arn:… because
_REFUSAL = re.compile(
    r"(?:User: (?P<user>\S+) is )?not authorized to perform:? (?P<action>[a-z0-9-]+:\w+)"
    r"(?: on resource: (?P<resource>\S+))?",
    re.IGNORECASE,
)

_REGION = re.compile(r"\.(?P<region>[a-z0-9-]+)\.(?:amazonaws\.com|api\.aws)")

_LEAST_LEFT = 600.0
"""Seconds before their end at which the SDK renews temporary credentials at the latest."""

_SENT = "sent"
"""Where an exception says how often its request was sent (`_note_tries`)."""

_NO_SESSION = frozenset(
    {
        "MalformedPolicyDocument",
        "PackedPolicyTooLarge",
        "RegionDisabledException",
        "ValidationError",
    }
)

SESSION = 60 * 60
"""Seconds that a session of a role lasts: as long as every role allows, also to whoever is in a
session of a role already.

https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_manage-assume.html
"""

_lock = threading.Lock()


# --- Clients ---


def client(service: str, region: str | None, *, fips: bool | None = None) -> Any:
    """Return the client of a service, the same one each time in this process; threads may share it.
    It sends a request once.

    `region` None: what the SDK's own configuration says. Call it within `translated`.
    """
    with _lock:  # a session makes one client at a time
        return _client(service, region, None, fips)


def s3_client(region: str | None) -> Any:
    """Return the client of S3, or of what speaks its protocol; see `client`."""
    addressing = _addressing(region)
    with _lock:
        return _client("s3", region, addressing, None)


def signing_client(region: str | None) -> Any:
    """Return a client of S3 for signing URLs, the same one each time; by itself the SDK signs them
    in the old way, which newer regions refuse.
    """
    addressing = _addressing(region)
    with _lock:
        return _client("s3", region, addressing, None, "s3v4")


def credentials_last(seconds: float) -> float:
    """Say for how many seconds the credentials that sign now are good for sure, up to so many.

    Temporary ones are renewed by the SDK when `_LEAST_LEFT` seconds are left of them.
    """
    credentials = _session().get_credentials()
    if isinstance(credentials, RefreshableCredentials) and credentials.refresh_needed(int(seconds)):
        return min(seconds, _LEAST_LEFT)
    return seconds


def upload_client(region: str | None, tries: int) -> Any:
    """Return a client of S3 for one upload, to be closed after it; call it within `translated`.

    It sends a request up to `tries` times, as long as time may mend why it fails. The SDK takes
    these tries from a stock that each client has, and that only success refills: of a client that
    is kept, an outage would leave none.
    """
    config = Config(retries=_retries(tries), s3=_placed(_addressing(region)))
    with _lock:
        made = _made("s3", region, config)
    made.meta.events.register("needs-retry.s3", _note_tries)
    return made


def forget() -> None:
    """Look for credentials anew with the next client: those there are have ended, or were
    changed.
    """
    _session.cache_clear()
    _client.cache_clear()


@per_process(4)
def _session() -> Session:
    """Return what makes clients; its own ones, with which it gets credentials (STS, SSO), send a
    request once as well.
    """
    session = Session()
    session.set_default_client_config(
        Config(connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, retries=_retries(1))
    )
    session.lazy_register_component(
        "data_loader", lambda: _loader(session.get_config_variable("data_path"))
    )
    return session


@lru_cache(4)
def _loader(path: str | None) -> Loader:
    """Return what reads the SDK's descriptions of services, and keeps them: they are megabytes of
    JSON, and the same for whatever credentials there are.
    """
    return create_loader(path)


@per_process(32)
def _client(
    service: str,
    region: str | None,
    addressing: Addressing | None,
    fips: bool | None,
    signature: str | None = None,
) -> Any:
    config = Config(s3=_placed(addressing), use_fips_endpoint=fips, signature_version=signature)
    return _made(service, region, config)


def _made(service: str, region: str | None, config: Config, **keys: Any) -> Any:
    try:
        return _session().create_client(service, region_name=region, config=config, **keys)
    except ValueError as error:
        if not str(error).startswith("Invalid endpoint"):
            raise
        raise OperatorError(
            f"The AWS SDK cannot use its endpoint for {service}: {error}",
            f"AWS_ENDPOINT_URL_{service.upper()}, AWS_ENDPOINT_URL or endpoint_url in ~/.aws/config is https://HOST",
        ) from None


def _retries(tries: int) -> Any:
    return {"total_max_attempts": tries, "mode": "standard"}


def _addressing(region: str | None) -> Addressing | None:
    """Where the server wants the bucket's name; None: where the SDK puts it.

    At endpoints other than Amazon's own that is the path, unless its configuration says otherwise.
    """
    meta = client("s3", region).meta
    told = "addressing_style" in (meta.config.s3 or {})
    return "virtual" if wants_virtual_hosts(meta.endpoint_url) and not told else None


def _placed(addressing: Addressing | None) -> Any:
    return {"addressing_style": addressing} if addressing else None


def _note_tries(attempts: int, caught_exception: Exception | None, **_: object) -> None:
    """Have an exception tell how often its request was sent, as the SDK has it in its answers
    (`RetryAttempts`).
    """
    if isinstance(caught_exception, sdk.BotoCoreError):
        caught_exception.kwargs = {**caught_exception.kwargs, _SENT: attempts}


# --- Who we are ---


def identity(region: str | None = None) -> Identity:
    """Whom AWS takes us for, as an ARN, and where the credentials were found; needs no permission.

    Raises what `translated` raises: without credentials, an `OperatorError` that lists what was
    tried.
    """
    with translated("sts:GetCallerIdentity", "*"):
        session = _session()
        credentials = session.get_credentials()
        if credentials is None:
            raise _no_credentials()
        where = region or session.get_config_variable("region") or _DEFAULT_REGION
        arn: str = client("sts", where).get_caller_identity()["Arn"]
    return Identity(arn, _SOURCES.get(credentials.method, credentials.method))


@dataclass(frozen=True)
class RoleSession:
    """A session of a role, for one thing that is done with its rights. Never printed."""

    keys: Mapping[str, str] = field(repr=False)
    """As the SDK's clients take them."""
    expires: float
    """When it ends, in seconds since 1970."""

    def client(self, service: str, region: str, *, fips: bool | None = None) -> Any:
        """Return a client that has the session's rights; see `client`."""
        config = Config(use_fips_endpoint=fips)
        with _lock:
            return _made(service, region, config, **self.keys)


def assume(
    role: str, name: str, statements: Sequence[Mapping[str, object]], region: str
) -> RoleSession:
    """Return a session of the role, of what both its own policies and these statements allow.

    `PermissionDenied` if we may not assume it, `OperatorError` if it cannot be had.
    """
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))
    with translated("sts:AssumeRole", role):
        try:
            found = client("sts", region).assume_role(
                RoleArn=role, RoleSessionName=name, Policy=policy, DurationSeconds=SESSION
            )["Credentials"]
        except sdk.ClientError as error:
            if code_of(error) not in _NO_SESSION:
                raise
            raise OperatorError(
                f"AWS gives no session of {role}: {_said(error)}",
                "see builder.push-role; a build may name some 15 images of one registry",
            ) from error
    keys = {
        "aws_access_key_id": found["AccessKeyId"],
        "aws_secret_access_key": found["SecretAccessKey"],
        "aws_session_token": found["SessionToken"],
    }
    return RoleSession(keys, found["Expiration"].timestamp())


def _no_credentials() -> OperatorError:
    providers = _session().get_component("credential_provider").providers
    tried = [_SOURCES.get(provider.METHOD, provider.METHOD) for provider in providers]
    return OperatorError(
        "There are no AWS credentials. These were tried, in this order: " + "; ".join(tried),
        f"give {machine()} a role (on EKS: Pod Identity or a service account's role), or set AWS_ACCESS_KEY_ID and"
        " AWS_SECRET_ACCESS_KEY",
    )


# --- Errors ---


@contextmanager
def translated(action: str, resource: str, *, tries: int = 1) -> Iterator[None]:
    """Raise the SDK's errors as our own, as far as they are known; others go through as they are.

    `action` and `resource` say what is tried, as a policy would (`s3:PutObject`, an ARN); a refusal
    that names others is believed. `tries` is how often the client sends a request; one that was
    sent so often is not for the step to try again, and what the SDK gave up earlier, or never tries
    again, is.
    """
    try:
        yield
    except sdk.ClientError as error:
        sent = error.response["ResponseMetadata"].get("RetryAttempts", 0) + 1
        known = _answered(error, action, resource, exhausted=1 < tries <= sent)
        if known is None:
            raise
        raise known from error
    except sdk.BotoCoreError as error:
        known = _failed(error, resource, exhausted=1 < tries <= error.kwargs.get(_SENT, 1))
        if known is None:
            raise
        raise known from error
    except ResponseParserError:  # its words are the answer, which may hold keys
        raise _unreachable(
            f"{resource}: the answer cannot be read", None, exhausted=False
        ) from None


def _answered(
    error: sdk.ClientError, action: str, resource: str, exhausted: bool
) -> ImagemillError | None:
    """Return the error for an answer that says no."""
    code, said, wait = code_of(error), _said(error), _retry_after(error)
    status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    if code in _EXPIRED:
        forget()
        return TransientError(
            f"The AWS credentials have ended: {said}",
            f"give {machine()} a role, whose credentials renew themselves",
        )
    if code in _WRONG_CLOCK:
        return OperatorError(
            f"AWS refuses the time of the request: {said}", f"set {machine()}'s clock, by NTP"
        )
    if code in _WRONG_KEY:
        return _wrong_key(said, action, resource)
    if code in _NO_BUCKET:
        return UserError(
            f"There is no bucket {_bucket(resource)}: {said}",
            "make it, or mend builder.build-context-store",
        )
    if code in _ELSEWHERE:
        return _elsewhere(error, resource)
    if code in _DAMAGED or code == "NoSuchUpload":
        return TransientError(
            f"What was sent to {resource} did not arrive: {said}", "see what is between"
        )
    if code in _THROTTLED or status == 429:
        return TransientError(
            f"AWS has had too many requests for {action}: {said}",
            "build less at once, or ask AWS for a higher limit",
            wait,
            exhausted=exhausted,
        )
    if code in _DOWN or status >= 500 or status == 408:
        return _unreachable(f"{resource}: the server answers {said}", wait, exhausted)
    return _denied(error, action, resource) if code in _DENIED or status == 403 else None


def _failed(error: sdk.BotoCoreError, resource: str, exhausted: bool) -> ImagemillError | None:
    """Return the error for a call that got no answer."""
    if isinstance(error, sdk.NoCredentialsError):
        return _no_credentials()
    if isinstance(error, sdk.NoRegionError | sdk.InvalidRegionError):
        return UserError(
            f"There is no such AWS region: {error}",
            "set environment.region, for example to eu-central-1",
        )
    if isinstance(error, sdk.FlexibleChecksumError | sdk.ChecksumError):
        return TransientError(
            f"What was read of {resource} is not what was stored there: {error}",
            "if it stays so, delete it from the store and build again",
        )
    if isinstance(error, sdk.SSLError) and "CERTIFICATE" in str(error):
        return OperatorError(
            f"The certificate of {resource}'s server is not trusted: {error}",
            authorities.HINT,
        )
    if isinstance(error, _LOST):
        return _no_such_region(error) or _unreachable(f"{resource}: {error}", None, exhausted)
    return _unusable(error)


def _no_such_region(error: sdk.BotoCoreError) -> UserError | None:
    """Return the error for a host that is not there since its region is not; only then, as the SDK
    may not know the newest.
    """
    session, named = (
        _session(),
        _REGION.search(str(error.kwargs.get("endpoint_url", ""))),
    )
    if not named or not isinstance(error, sdk.EndpointConnectionError):
        return None
    known = (
        session.get_available_regions("s3", each) for each in session.get_available_partitions()
    )
    if any(named["region"] in regions for regions in known):
        return None
    return UserError(
        f"There is no AWS region {named['region']}: {error}", "mend environment.region"
    )


def _unusable(error: sdk.BotoCoreError) -> OperatorError | None:
    """Return the error for credentials that are there, but cannot be used."""
    kinds = (
        sdk.ConfigNotFound,
        sdk.ConfigParseError,
        sdk.CredentialRetrievalError,
        sdk.InfiniteLoopConfigError,
        sdk.InvalidConfigError,
        sdk.PartialCredentialsError,
        sdk.ProfileNotFound,
        sdk.SSOError,
        sdk.TokenRetrievalError,
    )
    if not isinstance(error, kinds):
        return None
    # What a program printed may be anything.
    secret = (
        isinstance(error, sdk.CredentialRetrievalError)
        and error.kwargs.get("provider") == "custom-process"
    )
    return OperatorError(
        f"The AWS credentials cannot be used: {'the credential_process of the profile failed' if secret else error}",
        "try `aws sts get-caller-identity` as the user that Imagemill runs as",
    )


def _denied(error: sdk.ClientError, action: str, resource: str) -> PermissionDenied:
    refusal = _REFUSAL.search(error.response["Error"].get("Message") or "")
    named = refusal.groupdict() if refusal else {}
    action, resource = (
        named.get("action") or action,
        (named.get("resource") or resource).rstrip(".,"),
    )
    return PermissionDenied(
        f"AWS refuses {action} on {resource}: {_said(error)}",
        f"allow {action} on {resource} to {named.get('user') or f'the identity of {machine()}'}",
        action,
        resource,
    )


def _wrong_key(said: str, action: str, resource: str) -> OperatorError:
    return OperatorError(
        f"The AWS credentials are wrong: {action} on {resource} was answered with {said}",
        "see that AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or wherever else they come from, belong to this account"
        " and this endpoint, and are active",
    )


def _elsewhere(error: sdk.ClientError, resource: str) -> UserError:
    headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
    details = cast("Mapping[str, str]", error.response["Error"])
    region = headers.get("x-amz-bucket-region") or details.get("Region") or "another"
    return UserError(
        f"The bucket {_bucket(resource)} is in the region {region}: {_said(error)}",
        "set environment.region to the bucket's, or use a bucket of that region",
    )


def _unreachable(what: str, retry_after: float | None, exhausted: bool) -> ServiceUnreachable:
    hint = "see whether the service and the network are up, and whether there is such a region or endpoint"
    return ServiceUnreachable(
        f"AWS cannot be reached for {what}", hint, retry_after, exhausted=exhausted
    )


def code_of(error: sdk.ClientError) -> str:
    """Return the code of an error, as AWS names it; empty if it has none."""
    code: str = error.response["Error"].get("Code", "")
    return code


def _said(error: sdk.ClientError) -> str:
    """Return the server's own words, in one line; they may be a whole page of whatever stands
    between.
    """
    words = f"{code_of(error)} {error.response['Error'].get('Message') or ''}"
    return shortened(words)


def _bucket(resource: str) -> str:
    return resource.rpartition(":::")[2].partition("/")[0]


def _retry_after(error: sdk.ClientError) -> float | None:
    return retry_after_seconds(
        error.response["ResponseMetadata"].get("HTTPHeaders", {}).get("retry-after")
    )
