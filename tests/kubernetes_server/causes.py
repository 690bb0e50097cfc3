"""Causes of 422, in the words of k8s.io/apimachinery/pkg/util/validation/field."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from kubernetes_server.status import Cause

Causes = Iterator[Cause]
IMMUTABLE = "field is immutable"


def required(field: str, detail: str = "") -> Cause:
    return Cause("FieldValueRequired", field, "Required value" + (f": {detail}" if detail else ""))


def invalid(field: str, value: Any, detail: str) -> Cause:
    return Cause("FieldValueInvalid", field, f"Invalid value: {json.dumps(value)}: {detail}")


def duplicate(field: str, value: Any) -> Cause:
    return Cause("FieldValueDuplicate", field, f"Duplicate value: {json.dumps(value)}")


def missing(field: str, value: Any) -> Cause:
    return Cause("FieldValueNotFound", field, f"Not found: {json.dumps(value)}")


def forbidden(field: str, detail: str) -> Cause:
    return Cause("FieldValueForbidden", field, f"Forbidden: {detail}")


def too_long(field: str, most: int) -> Cause:
    return Cause("FieldValueTooLong", field, f"Too long: may not be more than {most} bytes")


def too_many(field: str, count: int, most: int) -> Cause:
    return Cause("FieldValueTooMany", field, f"Too many: {count}: must have at most {most} items")


def named(field: str, value: str | None, faults_of: Any, detail: str = "") -> Causes:
    """A required text, and what its grammar finds fault with."""
    if not value:
        yield required(field, detail)
    else:
        yield from (invalid(field, value, fault) for fault in faults_of(value))


def one_of(field: str, value: Any, supported: Iterable[str]) -> Causes:
    """A value that must be among some; none at all is another's matter."""
    known = sorted(supported)
    if value is not None and value not in known:
        choice = ", ".join(json.dumps(name) for name in known)
        yield Cause(
            "FieldValueNotSupported",
            field,
            f"Unsupported value: {json.dumps(value)}: supported values: {choice}",
        )


def not_negative(field: str, value: int | None) -> Causes:
    if value is not None and value < 0:
        yield invalid(field, value, "must be greater than or equal to 0")


def within(field: str, value: int | None, least: int, most: int) -> Causes:
    if value is not None and not least <= value <= most:
        yield invalid(field, value, f"must be between {least} and {most}, inclusive")


def unchanged(field: str, before: Any, after: Any) -> Causes:
    if before != after:
        yield invalid(field, after, IMMUTABLE)


def duplicates(field: str, items: Iterable[tuple[str, Any]]) -> Causes:
    """Values that come again; `items` are the path below `field` and the value of each."""
    seen: set[Any] = set()
    for path, value in items:
        if value in seen:
            yield duplicate(f"{field}{path}", value)
        seen.add(value)
