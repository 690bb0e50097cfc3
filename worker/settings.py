"""The environment of a worker, read here and nowhere else."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from imagemill.errors import OperatorError
from imagemill.sources.options import SourceOptions
from tasks.settings import Setup


class Settings(BaseSettings, Setup):
    """`Setup`, and where broker and results are: each field from `IMAGEMILL_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="IMAGEMILL_", frozen=True, env_ignore_empty=True)

    broker: str = Field(
        repr=False,
        description="URL of the broker: redis://, rediss://, redis+socket://, amqp://, amqps://",
    )
    backend: str = Field(
        "",
        repr=False,
        description="URL of the Redis for results; default: the broker, if it is Redis",
    )
    redelivery_seconds: float = Field(
        60, gt=0, description="how long the messages of a worker that died lie still on Redis"
    )
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    log_format: str = Field(
        "text", pattern="^(text|json)$", description="text, or json: one object per line"
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="where a worker answers /healthz, /readyz and /metrics; default: nowhere",
    )
    insecure_registries: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(), description="separated by ','"
    )
    docker_host: str | None = Field(
        None, validation_alias=AliasChoices("IMAGEMILL_DOCKER_HOST", "DOCKER_HOST")
    )
    docker_config: Path = Field(
        default_factory=lambda: Path.home() / ".docker",
        validation_alias=AliasChoices("IMAGEMILL_DOCKER_CONFIG", "DOCKER_CONFIG"),
    )

    environment: dict[str, str] = Field(default_factory=lambda: dict(os.environ), repr=False)
    sources: SourceOptions = Field(
        default_factory=lambda: SourceOptions.from_environment(os.environ), repr=False
    )

    @field_validator("insecure_registries", mode="before")
    @classmethod
    def _split_hosts(cls, value: Any) -> Any:
        return (
            frozenset(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @model_validator(mode="before")
    @classmethod
    def _backend_is_broker(cls, values: dict[str, Any]) -> dict[str, Any]:
        broker = str(values.get("broker", ""))
        if not values.get("backend") and broker.startswith(("redis", "rediss", "unix")):
            return {**values, "backend": broker}
        return values

    @field_validator("backend")
    @classmethod
    def _backend_is_redis(cls, value: str) -> str:
        if not value.startswith(("redis", "unix")):
            raise ValueError(
                "results, locks and logs need Redis: set IMAGEMILL_BACKEND=redis://HOST:6379/0"
            )
        return value


def from_environment() -> Settings:
    """The settings of this process; `OperatorError` names each variable that is missing or
    wrong.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"IMAGEMILL_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()
        )
        raise OperatorError(
            f"The worker's environment is not complete: {faults}",
            "docs/operating.md lists the variables; the least is IMAGEMILL_BROKER=redis://HOST:6379/0",
        ) from None
