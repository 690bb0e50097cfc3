"""What the steps need to know of the worker they run on: found at `app.conf.imagemill`, put there
by `worker.app`.
"""

from functools import lru_cache
from pathlib import Path
from typing import cast

from celery import current_app
from pydantic import BaseModel, ConfigDict, Field

from imagemill.client import open_journal
from imagemill.names import BUILD_TIMEOUT
from imagemill.sources.options import SourceOptions
from imagemill.state.journal import Journal


class Setup(BaseModel):
    """Places and limits of one worker. Times are in seconds."""

    model_config = ConfigDict(frozen=True)

    backend: str = Field(
        repr=False, description="URL of the Redis that holds results, journals and locks"
    )
    key_prefix: str = Field(
        "", description="put before every key in Redis: several installations in one database"
    )
    config: Path | None = Field(
        None, description="launch config that is used where a request names none"
    )
    config_dir: Path | None = Field(
        None, description="folder of the launch configs that requests may name"
    )
    home: Path = Field(
        default_factory=Path.home, description="where the W&B agent's own config is looked for"
    )
    state_dir: Path = Field(
        default_factory=lambda: Path.home() / ".cache/imagemill",
        description="scratch space, and packed contexts where the config names no context store",
    )
    cache_dir: Path | None = Field(
        None,
        description="contexts and what is known of sources' files, kept from build to build;"
        " default: the state_dir",
    )
    context_cache_bytes: int = Field(
        20 << 30, ge=0, description="bytes of contexts that are kept on the node"
    )
    source_cache_bytes: int = Field(
        10 << 30, ge=0, description="bytes of fetched sources that are kept on the node"
    )
    sources: SourceOptions = Field(SourceOptions(), description="what sources may be read, and how")
    build_secrets_dir: Path | None = Field(
        None, description="folder with a file per build secret, named by its id"
    )
    insecure_registries: frozenset[str] = Field(
        frozenset(), description="hosts of registries that speak plain HTTP"
    )
    docker_cli: Path | None = Field(
        None, description="the docker command; default: the first on PATH with BuildKit"
    )
    docker_host: str | None = Field(
        None, description="the engine; default: the docker command's current context"
    )
    docker_config: Path = Field(
        default_factory=lambda: Path.home() / ".docker",
        description="folder of docker's config.json",
    )
    environment: dict[str, str] = Field(
        {}, repr=False, description="what docker and credential helpers are started with"
    )
    build_timeout: float = Field(
        BUILD_TIMEOUT, gt=0, description="the most that a build may take, once started"
    )
    hash_timeout: float = Field(
        600, gt=0, description="the most that fetching and hashing a source may take"
    )
    upload_timeout: float = Field(
        900, gt=0, description="the most that packing and storing a context may take"
    )
    quick_timeout: float = Field(120, gt=0, description="the most that any other step may take")
    max_retries: int = Field(
        5, ge=0, description="how often a step is tried again after a transient error"
    )
    retry_backoff: float = Field(
        1, gt=0, description="the first wait before a retry; doubled each time, with jitter"
    )
    retry_backoff_max: float = Field(120, gt=0, description="the longest wait before a retry")
    max_deliveries: int = Field(
        3, ge=1, description="how often a step is started whose worker died in it"
    )
    lock_lease: float = Field(
        30, gt=0, description="how long an image stays locked after its builder's worker died"
    )
    wait_interval: float = Field(
        2, gt=0, description="how often a build looks whether another one of its image is done"
    )

    @property
    def kept(self) -> Path:
        """Folder of what makes the next build quick."""
        return self.cache_dir or self.state_dir


def setup() -> Setup:
    """The setup of the worker that runs the current task."""
    return cast(Setup, current_app.conf.imagemill)


@lru_cache(maxsize=4)
def _journal(backend: str, prefix: str) -> Journal:
    return open_journal(current_app, backend, prefix)


def journal() -> Journal:
    """The journal of this worker's Redis; one client, with its connection pool, per process."""
    place = setup()
    return _journal(place.backend, place.key_prefix)
