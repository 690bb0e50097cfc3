"""What engines and registries say when they fail, told apart by who can mend it.

The texts are those of Docker 20.10 to 29, BuildKit 0.8 to 0.26 and containerd: there are no codes
behind them. A text that nothing here knows is left to the caller.
"""

import re
from typing import NamedTuple

from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
)
from imagemill.patterns import Linear
from imagemill.place import machine
from imagemill.text import shortened

_NO_ENGINE = re.compile(
    r"cannot connect to the docker daemon|failed to connect to the docker API|error during connect|failed to dial gRPC",
    re.IGNORECASE,
)
_ENGINE_LOST = re.compile(
    r"code = Unavailable|transport is closing|error reading from server|http2: .*closed|no active session"
    r"|failed to receive status|^Unavailable:|^unexpected EOF$|^EOF$"
)
_NO_ACCESS = re.compile(
    r"permission denied while trying to connect to the docker|dial unix \S+: connect: permission denied",
    re.IGNORECASE,
)
NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)

_RATE_LIMIT = re.compile(
    r"toomanyrequests|429 too many requests|\bHTTP 429\b|status(?: code)?:? 429\b|rate limit",
    re.IGNORECASE,
)
PLAIN_HTTP = re.compile(r"server gave HTTP response to HTTPS client")
NO_SUCH_IMAGE = re.compile(r"not found|manifest unknown|does not exist|name unknown", re.IGNORECASE)
UNTRUSTED = re.compile(r"x509: |certificate signed by unknown authority|tls: failed to verify")
_UNREACHABLE = re.compile(
    r"connection refused|no such host|i/o timeout|TLS handshake timeout|network is unreachable|no route to host"
    r"|connection reset by peer|broken pipe|server misbehaving|name resolution|unexpected EOF|: EOF$|deadline exceeded"
    r"|Client\.Timeout|request canceled while waiting",
    re.IGNORECASE,
)
_NOBODY_THERE = re.compile(
    r"connection refused|no such host|network is unreachable|no route to host", re.IGNORECASE
)
_SERVER_ERROR = re.compile(
    r"\b50[0234] (?:Internal|Bad Gateway|Service|Gateway)|unexpected HTTP status: 5\d\d"
)
_REFUSED = re.compile(
    r"no basic auth credentials|unauthorized|authentication required|insufficient_scope|forbidden|denied",
    re.IGNORECASE,
)

# tag invalid: The image tag 'v1' already exists in the 'mill' repository and cannot be overwritten
# because the repository is immutable. Cannot update tag v1. The repository has enabled tag
# immutability
IMMUTABLE_TAG = Linear(
    r"tag '\S+' already exists in .* cannot be overwritten|ImageTagAlreadyExistsException"
    r"|repository has enabled tag immutability"
)
"""How ECR and Artifact Registry say that they have an image of that tag, which nobody can
change.
"""


class Doing(NamedTuple):
    """What was being done when something failed, in words for a message, and which registry took
    part in it.
    """

    action: str
    registry: str


def engine_failure(text: str, host: str) -> ImagemillError | None:
    """Return the error for what a docker CLI says of the engine at `host` itself, if it is about
    that.
    """
    if _NO_ACCESS.search(text):
        return PermissionDenied(
            f"{machine().capitalize()} may not use the Docker engine at {host}",
            "run Imagemill as a member of the group that owns the socket (docker), or as root",
        )
    if _NO_ENGINE.search(text):
        return ServiceUnreachable(
            f"The Docker engine at {host} does not answer",
            "start it (systemctl start docker), or set DOCKER_HOST to the engine that is to be used",
            refused=True,
        )
    if NO_SPACE.search(text):
        return OperatorError(
            f"The Docker engine at {host} has no space left: {shortened(text)}",
            "make room on its machine: docker builder prune, docker image prune",
        )
    return None


def engine_lost(text: str, host: str) -> ImagemillError | None:
    """Return the error for an engine that went away in the middle of something, if the text says
    so.
    """
    if not _ENGINE_LOST.search(text):
        return None
    return ServiceUnreachable(
        f"The Docker engine at {host} broke off: {shortened(text)}",
        "see the engine's own log (journalctl -u docker)",
    )


def registry_failure(text: str, doing: Doing) -> ImagemillError | None:
    """Return the error for what an engine says of a registry, if it is one of the known ones."""
    action, registry = doing
    told = f"{action} failed: {shortened(text)}"
    if _RATE_LIMIT.search(text):
        return ServiceUnreachable(
            f"{action} failed: {registry} limits how often it is asked",
            f"wait, give {machine()} a login of that registry, or use a mirror",
        )
    if PLAIN_HTTP.search(text):
        return OperatorError(
            f"{action} failed: {registry} does not speak TLS",
            f"add {registry} to insecure-registries in the engine's daemon.json if it is to be used without",
        )
    if UNTRUSTED.search(text):
        return OperatorError(
            told,
            f"put the authority that signed it into /etc/docker/certs.d/{registry}/ca.crt on the engine's machine",
        )
    if _UNREACHABLE.search(text) or _SERVER_ERROR.search(text):
        return ServiceUnreachable(
            told,
            f"check that {registry} runs, and the network between it and the Docker engine",
            refused=_NOBODY_THERE.search(text) is not None,
        )
    if _REFUSED.search(text):
        return PermissionDenied(told, f"give {machine()} a login that {registry} accepts for this")
    return None
