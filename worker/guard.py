"""What looks at messages before Celery's main process works with them: none may end it.

A message whose text cannot be read, or in which something is not of the kind that Celery takes for
granted, is put with the dead letters instead, with the reason.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from imagemill.messages import MOST_BYTES, MOST_DEPTH
from tasks.step import Step

_LONGEST_ID = 255


class Refused(Exception):  # noqa: N818 (an answer)
    """The message is not to be worked with; the text says why."""


class _Strict(BaseModel):
    """No kind passes for another; what Celery does not look at may be anything."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Headers(_Strict):
    id: str = Field(min_length=1, max_length=_LONGEST_ID)
    task: str
    lang: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    shadow: str | None = None
    eta: str | None = None
    expires: str | None = None
    retries: int = Field(0, ge=0, lt=1 << 31)
    timelimit: list[float | None] | None = Field(None, min_length=2, max_length=2)
    ignore_result: bool | None = None
    replaced_task_nesting: int | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, str | list[str]] | None = None

    @field_validator("eta", "expires")
    @classmethod
    def _check_time(cls, value: str | None) -> str | None:
        if value is not None and not 1970 < datetime.fromisoformat(value).year < 9000:
            raise ValueError("not a time that can be waited for")
        return value

    @field_validator("timelimit")
    @classmethod
    def _check_limits(cls, value: list[float | None] | None) -> list[float | None] | None:
        if any(limit is not None and not 0 < limit < 1e9 for limit in value or ()):
            raise ValueError("not a pair of seconds")
        return value


class _DeliveryInfo(_Strict):
    exchange: str | None = None
    routing_key: str | None = None
    redelivered: bool | None = None


class _Properties(_Strict):
    reply_to: str | None = None
    correlation_id: str | None = None
    priority: int | None = None
    delivery_info: _DeliveryInfo | None = None


class _Canvas(_Strict):
    """What Celery is asked to do with the result."""

    callbacks: list[dict[str, Any]] | None = None
    errbacks: list[dict[str, Any]] | None = None
    chain: list[dict[str, Any]] | None = None
    chord: dict[str, Any] | None = None


class _Step(_Strict):
    """What the message of a step says."""

    id: str
    turn: int


_BODY: TypeAdapter[tuple[list[Any], dict[str, Any], _Canvas]] = TypeAdapter(
    tuple[list[Any], dict[str, Any], _Canvas]
)
_STEPS: TypeAdapter[tuple[_Step]] = TypeAdapter(tuple[_Step])


def envelope(text: str) -> dict[str, Any]:
    """Read a message as it lies in Redis; `Refused` if it is none."""
    return _envelope(_read(text))


def noted(text: str) -> tuple[dict[str, Any], str, str]:
    """Read what is noted in Redis of a message that a worker has: itself, exchange and routing key;
    `Refused` if it is none.
    """
    match _read(text):
        case [payload, str(exchange), str(key)]:
            return _envelope(payload), exchange, key
    raise Refused("it is not in the form of a message")


def _envelope(payload: Any) -> dict[str, Any]:
    _check_depth(payload)
    properties = payload.get("properties") if isinstance(payload, dict) else None
    if not isinstance(properties, dict) or not isinstance(payload.get("headers"), dict):
        raise Refused("it is not in the form of a message")
    if not isinstance(properties.get("delivery_info"), dict):
        raise Refused("it does not say where it was sent")
    _check_base64(payload.get("body"), properties.get("body_encoding"))
    return dict(payload)


def _check_base64(body: Any, encoding: Any) -> None:
    try:
        is_base64 = encoding == "base64" and bool(base64.b64decode(body, validate=True))
    except (TypeError, ValueError):
        is_base64 = False
    if not is_base64:
        raise Refused("its body is not in base64")


def check(message: Any, tasks: Mapping[str, Any]) -> None:
    """Raise `Refused` unless Celery can work with the message."""
    if len(message.body or "") > MOST_BYTES:
        raise Refused(f"its body is longer than {MOST_BYTES:,} bytes")
    for part in (message.headers, message.properties):
        _check_depth(part)
    with _refusing("its headers"):
        headers = _Headers.model_validate(message.headers)
    if not headers.id.isprintable():
        raise Refused("its id is not a text")
    with _refusing("its properties"):
        _Properties.model_validate(message.properties)
        _DeliveryInfo.model_validate(message.delivery_info or {})
    body = _body(message)
    with _refusing("its body"):
        args, *_ = _BODY.validate_python(tuple(body))
        if isinstance(tasks.get(headers.task), Step):
            _STEPS.validate_python(tuple(args))


def _body(message: Any) -> Any:
    if message.content_type != "application/json" or message.content_encoding != "utf-8":
        raise Refused("its body is not JSON in UTF-8")
    try:
        text = message.body if isinstance(message.body, str) else message.body.decode()
    except (AttributeError, UnicodeDecodeError):
        raise Refused("its body is not JSON in UTF-8") from None
    body = _read(text)
    _check_depth(body)
    if not isinstance(body, list):
        raise Refused("its body is not [args, kwargs, embedded]")
    return body


@contextmanager
def _refusing(part: str) -> Iterator[None]:
    """Say of a part of a message what is wrong with it: which field, and never what is in it."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "all"
        raise Refused(f"{part} cannot be read: {place}: {first['msg']}") from None


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise Refused(f"it is nested deeper than {MOST_DEPTH}") from None
    except ValueError:
        raise Refused("it is not JSON") from None


def shallow(headers: Any) -> dict[str, Any]:
    """Return the headers as far as they can be kept as JSON."""
    found = headers if isinstance(headers, dict) else {}
    return {
        str(name): value
        for name, value in found.items()
        if isinstance(value, str | int | float | None)
        or (isinstance(value, list) and all(isinstance(each, str | float | None) for each in value))
    }


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise Refused(f"it is nested deeper than {MOST_DEPTH}")
