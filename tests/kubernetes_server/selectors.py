"""Label and field selectors, parsed and matched as Kubernetes does.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
"""

import re
from collections.abc import Callable

from kubernetes_server import names, status
from kubernetes_server.resources import Resource
from kubernetes_server.status import Object

Selector = Callable[[Object], bool]

_SET_BASED = re.compile(r"^(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUALITY = re.compile(r"^(?P<key>[^=!\s]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^=!\s]*)$")
_EXISTENCE = re.compile(r"^(?P<not>!?)\s*(?P<key>[^=!\s()]+)$")


def label_selector(text: str) -> Selector:
    """Whether an object's labels meet every requirement of `a=b,c in (d,e),!f`; 400 if that cannot
    be parsed.
    """
    requirements = [_label_requirement(part.strip()) for part in _split(text)]
    return lambda candidate: all(
        meets(candidate["metadata"].get("labels") or {}) for meets in requirements
    )


def field_selector(resource: Resource, text: str) -> Selector:
    """Whether an object's fields are as `metadata.name=a,status.phase!=b` says; 400 for a field
    that has no index.
    """
    requirements = [
        _field_requirement(resource, part.strip()) for part in text.split(",") if part.strip()
    ]
    return lambda candidate: all(meets(candidate) for meets in requirements)


def _split(text: str) -> list[str]:
    """Split at the commas that are not in parentheses."""
    return [part for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _label_requirement(text: str) -> Callable[[dict[str, str]], bool]:
    if found := _SET_BASED.match(text):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        _check(text, key, values)
        negated = found["operator"] == "notin"
        return lambda labels: (key in labels and labels[key] in values) is not negated
    if found := _EQUALITY.match(text):
        key, value = found["key"], found["value"]
        _check(text, key, {value})
        negated = found["operator"] == "!="
        return lambda labels: (labels.get(key) == value) is not negated
    if found := _EXISTENCE.match(text):
        key, absent = found["key"], bool(found["not"])
        _check(text, key, set())
        return lambda labels: (key in labels) is not absent
    raise status.bad_request(
        f"unable to parse requirement: found {text!r}, expected: in, notin, =, ==, !=, gt, lt"
    )


def _check(text: str, key: str, values: set[str]) -> None:
    faults = names.qualified_name(key) + [
        fault for value in values for fault in names.label_value(value)
    ]
    if faults:
        raise status.bad_request(f"unable to parse requirement: {text!r}: {'; '.join(faults)}")


def _field_requirement(resource: Resource, text: str) -> Selector:
    found = _EQUALITY.match(text)
    if found is None:
        raise status.bad_request(f"invalid selector: {text!r}; can't understand {text!r}")
    path, value, negated = found["key"], found["value"], found["operator"] == "!="
    if path not in ("metadata.name", "metadata.namespace", *resource.fields):
        what = f'"{resource.api_version}, Resource={resource.plural}"'
        why = f"field label not supported: {path}"
        raise status.bad_request(
            f'Unable to find {what} that match label selector "", field selector "{text}": {why}'
        )
    return lambda candidate: (field_value(candidate, path) == value) is not negated


def field_value(candidate: Object, path: str) -> str:
    """The field's value as a selector sees it: text, empty if it is not there."""
    path = {"source": "source.component", "status.successful": "status.succeeded"}.get(path, path)
    value: object = candidate
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return str(value).lower()
    return "0" if value is None and path == "status.succeeded" else str(value or "")
