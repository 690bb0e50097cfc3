"""How the packed context reaches the build pod: Kaniko fetches it itself, by a signed URL, by the
URI that the store gave it, or from a volume.

A signed URL is in a Secret of the Job's own, and Kubernetes puts it into the arguments
(docs/adr/0028-a-build-pod-with-nothing-to-steal.md).

What it understands, and which variables it reads, is in its `pkg/buildcontext`:
https://github.com/osscontainertools/kaniko/tree/v1.28.3/pkg/buildcontext. It leaves what it
downloads from S3 in the folder that it unpacks into. The packed context
(docs/adr/0001-the-packed-context.md) has the build's files one folder further down, and
`--context-sub-path` makes that folder the context: so the download is in no image.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from imagemill.builders.kaniko.arguments import CONTEXT_URL
from imagemill.builders.kaniko.pod_additions import (
    FOLDER,
    Equipment,
    literal,
    secret_variable,
    variable,
    volume,
)
from imagemill.clouds.hosts import AZURE_BLOB, wants_virtual_hosts
from imagemill.config.model import Environment, KanikoBuilder, LaunchConfig
from imagemill.config.regions import store_region
from imagemill.config.store_key import ACCOUNT_KEY
from imagemill.context import CONTEXT, DOCKERFILE
from imagemill.errors import ConfigError, PermissionDenied
from imagemill.masking import HIDDEN
from imagemill.objects import store_for
from imagemill.ports import Progress, SignedUrl

_ENDPOINTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "gs": ("STORAGE_EMULATOR_HOST",)}
)
"""The variables of the clouds' SDKs that name another place than the cloud's own; the first one
that is set counts.
"""

URL_KEY = "url"
"""The key of the signed URL in its Secret."""

Signer = Callable[[float], SignedUrl]

_TRIAL = 1.0  # second for which the URL is good by which it is tried whether the worker may sign
_SIGNATURE = re.compile(
    r"([?&](?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|sig)=)[^&\s\"']+"
)

_MOUNT = f"{FOLDER}/contexts"

# The Dockerfile is looked for from the context's folder, and so is found wherever Kaniko unpacks
# to.
_LAYOUT = (f"--context-sub-path={CONTEXT}", f"--dockerfile=../{DOCKERFILE}")


def endpoint(uri: str, variable: Callable[[str], str | None]) -> str | None:
    """Where workers find the store of `uri`, if that is not the cloud's own place; `variable` reads
    their environment.

    What stands in files (`endpoint_url` in ~/.aws/config) is not known here.
    """
    values = map(variable, _ENDPOINTS.get(urlsplit(uri).scheme, ()))
    return next(filter(None, values), None)


def signs(section: KanikoBuilder, endpoint: str | None) -> bool:
    """Return whether pods get their context by a signed URL; `ConfigError` if they should, and cannot.

    Kaniko takes no URL of plain HTTP for a context.
    """
    if not section.is_signed or not (endpoint or "").startswith("http:"):
        return section.is_signed
    if section.context_access is None:
        return False
    raise ConfigError(
        f"builder.context-access is signed, and the context store is at {endpoint}: Kaniko reads no"
        " URL without TLS",
        "give the store an https address, or set builder.context-access: identity",
    )


def signer(
    section: KanikoBuilder, environment: Environment, uri: str, progress: Progress
) -> Signer | None:
    """Return what signs the URL of the context at `uri` anew, for so many seconds.

    None where the worker may not sign and the config does not insist: then the log says so.
    """
    config = LaunchConfig(environment=environment, builder=section)
    store = store_for(section.build_context_store, region=store_region(config))
    name = uri.rpartition("/")[2]

    def sign(seconds: float) -> SignedUrl:
        signed = store.signed(name, seconds)
        assert signed is not None  # the config has no such store
        return signed

    try:
        sign(_TRIAL)
    except PermissionDenied as error:
        if section.context_access is not None:
            raise
        progress.log(
            f"The build pod reads its context with its own identity, since no URL can be signed:"
            f" {error.message} ({error.hint})"
        )
        return None
    return sign


def without_signatures(text: str) -> str:
    """Return the text with `***` for what makes a signed URL one: Go repeats the whole URL of a
    request that failed, also of one that another worker has signed.
    """
    return _SIGNATURE.sub(rf"\1{HIDDEN}", text)


def kaniko_url(url: str) -> str:
    """Return the URL as Kaniko reads it by a plain GET.

    For a host of Blob Storage it wants the account's key, unless the port is in it too:
    https://github.com/osscontainertools/kaniko/blob/v1.28.3/pkg/constants/constants.go.
    """
    parts = urlsplit(url)
    if not AZURE_BLOB.fullmatch(parts.netloc):
        return url
    return parts._replace(netloc=f"{parts.netloc}:443").geturl()


def context_equipment(
    uri: str,
    section: KanikoBuilder,
    environment: Environment,
    endpoint: str | None = None,
    secret: str | None = None,
) -> Equipment:
    """Return what the pod needs to get the packed context at `uri`, an object of the section's
    store.

    `endpoint` is where the worker finds the store, if that is not the cloud's own place
    (`AWS_ENDPOINT_URL_S3`); `secret` the Secret with its signed URL, if it has one.
    """
    scheme = urlsplit(uri).scheme
    if scheme == "file":
        return _from_volume(uri, section)
    region = store_region(LaunchConfig(environment=environment, builder=section))
    if secret is not None:
        access = Equipment(arguments=(f"--context=$({CONTEXT_URL})", *_LAYOUT))
        access += secret_variable(CONTEXT_URL, secret, URL_KEY)
        # For what else of Amazon the pod may ask.
        return access + _s3(region, None) if scheme == "s3" else access
    access = Equipment(arguments=(f"--context={literal(uri)}", *_LAYOUT))
    if scheme == "s3":
        return access + _s3(region, endpoint)
    if scheme == "gs" and endpoint:
        return access + variable("STORAGE_EMULATOR_HOST", endpoint)
    return access


def account_key(secret: str, key: str) -> Equipment:
    """Return the key of the storage account, from a Secret."""
    return secret_variable(ACCOUNT_KEY, secret, key)


def _s3(region: str | None, endpoint: str | None) -> Equipment:
    """Region and endpoint; who else speaks S3 rarely has regions, but Amazon's library wants
    one.
    """
    access = Equipment()
    if region or endpoint:
        access += variable("AWS_REGION", region or "us-east-1")
    if endpoint:
        path_style = "false" if wants_virtual_hosts(endpoint) else "true"
        access += variable("S3_ENDPOINT", endpoint) + variable("S3_FORCE_PATH_STYLE", path_style)
    return access


def _from_volume(uri: str, section: KanikoBuilder) -> Equipment:
    """Return the mount of a context on a claim, whose top folder is the store's folder on the
    workers; in the pod it has a place of its own.
    """
    assert section.context_volume_claim is not None  # the config is refused without
    store, path = _path(section.build_context_store), _path(uri)
    file = path.relative_to(store)
    place = PurePosixPath(_MOUNT) / file.name
    # Read-only as a mount, and not as a claim, since that would keep some kinds of disks from the
    # workers' nodes. Of the claim only this build's file: what a Dockerfile runs reads all that is
    # mounted.
    claim = {"claimName": section.context_volume_claim}
    return Equipment(arguments=(f"--context=tar://{literal(str(place))}", *_LAYOUT)) + volume(
        "imagemill-context", str(place), {"persistentVolumeClaim": claim}, str(file)
    )


def _path(uri: str) -> PurePosixPath:
    return PurePosixPath(unquote(urlsplit(uri).path))
