"""What the steps need to know of the worker they run on: found at `app.conf.imagemill`, put there
by `worker.app`.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

from celery import current_app
from pydantic import AfterValidator, BeforeValidator, ByteSize, Field

from imagemill.addresses import networks
from imagemill.client import open_journal
from imagemill.config.policy import TenantRules
from imagemill.errors import OperatorError
from imagemill.names import BUILD_TIMEOUT
from imagemill.per_process import per_process
from imagemill.settings import Hosts, NodeSettings, listed
from imagemill.signing import Keys, own_keys
from imagemill.state.dead_letters import DeadLetters
from imagemill.state.journal import Journal
from imagemill.state.later import Later
from imagemill.state.records import Leases, Records
from imagemill.state.seal import Seal
from tasks.signals import message_refused


def _check_networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    networks(texts)
    return texts


def _check_addresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    for address in addresses:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected addresses such as https://host.example.com/path")
    return addresses


class ConfigChangedError(OperatorError):
    """The launch config of this worker is not the one that the build began with."""


class Setup(NodeSettings):
    """Places and limits of one worker. Times are in seconds."""

    backend: str = Field(
        "",
        repr=False,
        description="URL of the Redis that holds results, journals and locks; default: the broker,"
        " if that is Redis",
    )
    key_prefix: str = Field(
        "",
        description="put before every key in Redis: several installations in one database. Clients"
        " need the same; default: none",
    )
    cache_dir: Path | None = Field(
        None,
        description="contexts and what is known of sources' files, kept from build to build;"
        " default: `IMAGEMILL_STATE_DIR`",
    )
    context_cache_bytes: ByteSize = Field(
        ByteSize(20 << 30), ge=0, description="bytes of contexts that are kept on the node"
    )
    base_digest_seconds: float = Field(
        2,
        ge=0,
        description="how long the digest of a base image is trusted; 0: asked each time",
    )
    source_cache_bytes: ByteSize = Field(
        ByteSize(10 << 30),
        ge=0,
        description="bytes of fetched sources that are kept on the node; 0: none",
    )
    signing_keys: Path | None = Field(
        None,
        description="file with the key by which workers know what workers wrote, and in another line"
        " the one before it, the same on all workers; default: a key of the state_dir's own, which is"
        " enough where all workers share that ([security.md](security.md))",
    )
    build_timeout: float = Field(
        BUILD_TIMEOUT, gt=0, description="seconds that a build may take, once started"
    )
    hash_timeout: float = Field(
        600, gt=0, description="seconds that fetching and hashing a source may take"
    )
    upload_timeout: float = Field(
        900, gt=0, description="seconds that packing and storing a context may take"
    )
    quick_timeout: float = Field(120, gt=0, description="seconds that any other step may take")
    max_retries: int = Field(
        5,
        ge=0,
        description="how often a step is tried again after a transient error; a server that is away is"
        " waited for until the build's deadline",
    )
    retry_backoff: float = Field(
        1,
        gt=0,
        description="seconds before the first retry; doubled each time, the latter half at random",
    )
    attended: bool = Field(
        False,
        description="whether a person waits: what is refused is tried once more, and nothing longer"
        " than `IMAGEMILL_MAX_RETRIES` times. The command line's own service has it",
    )
    retry_backoff_max: float = Field(30, gt=0, description="seconds before a retry, at most")
    max_deliveries: int = Field(
        3, ge=1, description="how often a step is started whose worker died in it"
    )
    redelivery_seconds: float = Field(
        60,
        gt=0,
        description="seconds that a step lies still whose worker died, or whose message was lost",
    )
    lock_lease: float = Field(
        30, gt=0, description="seconds that an image stays locked after its builder's worker died"
    )
    wait_interval: float = Field(
        5,
        gt=0,
        description="seconds after which a build looks first whether another one of its image is done,"
        " and then ever more seldom; it is also woken by the end of that one",
    )

    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^/?#@\s]+/?$",
        description="a collector of OpenTelemetry, such as `http://collector:4318`, to which workers and"
        " Kaniko send traces over HTTP; default: none are made",
    )
    webhooks: Annotated[
        tuple[str, ...], BeforeValidator(listed), AfterValidator(_check_addresses)
    ] = Field(
        (),
        repr=False,
        description="addresses, separated by `,`, that are told by a CloudEvent when a build has ended",
    )
    webhook_secret_file: Path | None = Field(
        None, description="file with the secret (`whsec_…`) that these events are signed with"
    )
    webhook_networks: Annotated[
        tuple[str, ...], BeforeValidator(listed), AfterValidator(_check_networks)
    ] = Field((), description="networks in which webhooks may be though they are not public")
    insecure_webhooks: Hosts = Field(
        frozenset(), description="hosts of webhooks that may be told by plain HTTP"
    )

    @property
    def kept(self) -> Path:
        """Folder of what makes the next build quick."""
        return self.cache_dir or self.state_dir


def setup() -> Setup:
    """Return the setup of the worker that runs the current task."""
    return cast(Setup, current_app.conf.imagemill)


def served_tenants() -> Mapping[str | None, TenantRules]:
    """Return the tenants of the workers' own config when this one began, which have queues of their
    own: put there by `worker.tenants`.
    """
    return cast("Mapping[str | None, TenantRules]", current_app.conf.get("imagemill_tenants", {}))


@lru_cache(maxsize=4)
def _journal(backend: str, prefix: str) -> Journal:
    return open_journal(current_app, backend, prefix)


@lru_cache(maxsize=4)
def _records(backend: str, prefix: str, grace: float) -> Records:
    return Records(_journal(backend, prefix), grace, seal())


def seal_of(place: Setup) -> Seal:
    """Return the seal of a worker's settings: of the operator's keys, else of its state folder's."""
    if place.signing_keys is not None:
        return Seal(Keys.read(place.signing_keys))
    return Seal(own_keys(place.state_dir / "signing-key"))


@lru_cache(maxsize=4)
def _seal(keys: Path | None, state_dir: Path) -> Seal:
    return seal_of(setup())


def seal() -> Seal:
    """Return the seal of this worker."""
    place = setup()
    return _seal(place.signing_keys, place.state_dir)


@per_process(4)
def _leases(records: Records, grace: float) -> Leases:
    return Leases(records, grace)


def records() -> Records:
    """Return the records of all builds."""
    place = setup()
    return _records(place.backend, place.key_prefix, place.redelivery_seconds)


def leases() -> Leases:
    """Return what renews the leases of the steps in this process."""
    return _leases(records(), setup().redelivery_seconds)


def later() -> Later:
    """Return the messages that are to be sent later."""
    return Later(journal().redis, setup().key_prefix)


def put_aside(queue: str, reason: str, message: Mapping[str, Any]) -> None:
    """Keep a message that no worker may work with for a person to look at."""
    DeadLetters(journal().redis, setup().key_prefix).add(queue, reason, message)
    message_refused.send(sender=None)


def journal() -> Journal:
    """Return the journal of this worker's Redis; one client, with its connection pool, per process."""
    place = setup()
    return _journal(place.backend, place.key_prefix)
