"""The environment of a worker, read here and nowhere else."""

import os
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from imagemill import authorities, connections, settings
from imagemill.errors import OperatorError, UserError
from tasks.settings import Setup


class Settings(Setup):
    """`Setup`, and what the worker process itself needs: where the broker is, how it logs."""

    broker: str = Field(
        repr=False,
        description="URL of the broker: `redis://`, `rediss://`, `redis+socket://`, `amqp://`,"
        " `amqps://`",
    )
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)
    ] = Field("INFO", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`")
    log_format: Literal["text", "json"] = Field(
        "text", description="`text`, or `json`: one object per line"
    )
    remote_control: Literal["off", "questions", "orders"] = Field(
        "off",
        description="what workers do by Celery's remote control, which whoever may publish to the broker"
        " speaks: nothing (`off`), answer `questions`, as Flower's pages of workers ask them, or obey"
        " `orders`, too, such as to stop",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="where a worker answers /healthz, /readyz and /metrics; default: nowhere",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_urls(cls, values: dict[str, object]) -> dict[str, object]:
        broker = connections.broker_url(str(values.get("broker") or ""))
        backend = connections.backend_url(str(values.get("backend") or ""), broker)
        return {**values, "broker": broker, "backend": backend}


def from_environment() -> Settings:
    """Return the settings of this process; `OperatorError` names each variable that is missing or
    wrong.
    """
    try:
        authorities.install()
        return settings.read(Settings, os.environ)
    except UserError as error:
        raise OperatorError(error.message, error.hint) from None


def doubts(found: Settings) -> list[str]:
    """Return what is probably not meant so in the settings of this process, a sentence each."""
    return list(settings.doubts(Settings, found))
