"""Lays `kaniko-config`, a part of a Kubernetes Job, over the Job that Imagemill would create.

Mappings are merged key by key. Lists whose items have a key of their own are merged item by item,
by that key, as in a strategic merge patch:
https://kubernetes.io/docs/reference/using-api/api-concepts/#patch-strategic, with the keys of
`patchMergeKey` in https://github.com/kubernetes/api/blob/master/core/v1/types.go. Beyond it:

- The first container is the executor, whatever it is called.
- The executor's arguments are merged by their flags (see `arguments`).
- A variable, or a volume, replaces the one of its name as a whole: both are one of several kinds, which do not mix.
- Tolerations are added, and each replaces those of the same taint in the Job below.
- References of variables and the like are added, once each.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from imagemill.builders.kaniko import arguments

Document = dict[str, Any]

_MERGE_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "hostAliases": ("ip",),
        "imagePullSecrets": ("name",),
        "initContainers": ("name",),
        "ports": ("containerPort", "protocol"),
        "resourceClaims": ("name",),
        "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
        "volumeDevices": ("devicePath",),
        "volumeMounts": ("mountPath",),
    }
)
_REPLACED_BY_NAME = frozenset({"env", "volumes"})
_ADDED = frozenset({"envFrom", "finalizers", "ownerReferences", "schedulingGates"})

_NEEDED = frozenset(
    {"args", "containers", "env", "metadata", "spec", "template", "volumeMounts", "volumes"}
)
"""What holds parts that a build cannot do without: without a value (`env:`), these are as good as
absent.
"""

_QUANTITIES = frozenset({"divisor", "limits", "overhead", "requests", "sizeLimit"})


def pod_spec(job: Document) -> Document:
    """Return the pod that a Job makes, as far as it is given."""
    for key in ("spec", "template", "spec"):
        job = job.get(key) or {}
    return job


def executor(job: Document) -> Document:
    """Return the container that runs Kaniko, as far as it is given."""
    containers = pod_spec(job).get("containers") or [{}]
    first: Document = containers[0]
    return first


def lay(job: Document, over: Document) -> Document:
    """Return a copy of `job` with `over` laid over it; `null` deletes a key.

    Both are parts of a Job in shape (see `validation`); where one has a value of another kind,
    `over` counts.
    """
    return _mapping(job, with_quantities_as_text(over))


def _mapping(below: Document, over: Document) -> Document:
    result = dict(below)
    for key, value in over.items():
        if value is None and key not in _NEEDED:
            result.pop(key, None)
        elif value is not None:
            result[key] = _value(key, below.get(key), value)
    return result


def _value(key: str, below: Any, over: Any) -> Any:
    if isinstance(over, dict) and (below is None or isinstance(below, dict)):
        return _mapping(below or {}, over)
    if not isinstance(over, list) or not isinstance(below, list):
        return over
    if key == "containers":
        return _containers(below, over)
    if key in _REPLACED_BY_NAME:
        return _by_key(("name",), below, over, replace=True)
    if key in _MERGE_KEYS:
        return _by_key(_MERGE_KEYS[key], below, over)
    if key == "tolerations":
        return _tolerations(below, over)
    if key in _ADDED:
        return [*below, *(item for item in over if item not in below)]
    return over


def _containers(below: list[Any], over: list[Any]) -> list[Any]:
    """`below` has the executor."""
    if not over or not isinstance(over[0], dict):
        return over or below
    container = _mapping(below[0], over[0])
    given = over[0].get("args")
    if isinstance(given, list) and all(isinstance(argument, str) for argument in given):
        container["args"] = arguments.merge(below[0].get("args") or (), given)
    return [container, *_by_key(("name",), below[1:], over[1:])]


def _tolerations(below: list[Any], over: list[Any]) -> list[Any]:
    """Those of `over`, and those of `below` that it says nothing of; one without an effect is for
    all of its taint.
    """
    given = {
        (item.get("key"), item.get("effect") or None) for item in over if isinstance(item, dict)
    }

    def is_given(item: Document) -> bool:
        return not given.isdisjoint(
            {(item.get("key"), item.get("effect")), (item.get("key"), None)}
        )

    return [*over, *(item for item in below if not is_given(item))]


def _by_key(
    keys: tuple[str, ...], below: list[Any], over: list[Any], *, replace: bool = False
) -> list[Any]:
    """Return the items of `over` merged with, or in place of, those of `below` with the same
    `keys`; new ones at the end.
    """
    result = list(below)
    places = {_identity(keys, item): index for index, item in enumerate(result)}
    for item in over:
        index = places.get(_identity(keys, item)) if isinstance(item, dict) else None
        if index is None:
            result.append(item)
        else:
            result[index] = item if replace else _mapping(result[index], item)
    return result


def _identity(keys: tuple[str, ...], item: Document) -> tuple[str, ...]:
    # The same folder with a slash at its end is mounted to only once.
    return tuple(str(item.get(key)).rstrip("/") for key in keys)


def with_quantities_as_text(value: Any, within: bool = False) -> Any:
    """Return a copy in which quantities (`cpu: 2`) are text, as they are in all that Kubernetes
    says: it takes numbers too.
    """
    if isinstance(value, dict):
        return {
            key: with_quantities_as_text(item, within or key in _QUANTITIES)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [with_quantities_as_text(item, within) for item in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if within and is_number else value
