"""The kinds of PATCH: JSON merge patch (RFC 7396) and Kubernetes' strategic merge patch.

https://kubernetes.io/docs/reference/using-api/api-concepts/#patch-and-apply
The strategic one merges lists by the keys that the API's types declare (`patchMergeKey`).
"""

from typing import Any

from kubernetes_server import status
from kubernetes_server.status import Object

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
MERGE_KEYS = {
    "conditions": "type",
    "containers": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "ports": "containerPort",
    "secrets": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""Lists that a strategic merge patch merges, and the key of their items."""
_SETS = {"finalizers"}
"""Lists of plain values that a strategic merge patch adds to."""


def apply(content_type: str, current: Object, patch: Any) -> Object:
    """The object as patched; 400 for a patch that is no object, 415 for other kinds of patch."""
    if content_type not in (MERGE, STRATEGIC):
        raise status.unsupported_media_type([MERGE, STRATEGIC])
    if not isinstance(patch, dict):
        raise status.bad_request(
            "error decoding patch: json: cannot unmarshal into Go value of type map[string]any"
        )
    patched: Object = (
        merge(current, patch) if content_type == MERGE else strategic_merge(current, patch)
    )
    return patched


def merge(current: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(current) if isinstance(current, dict) else {}
    for key, value in patch.items():
        merged[key] = merge(merged.get(key), value)
        if value is None:
            del merged[key]
    return merged


def strategic_merge(current: Any, patch: Any) -> Any:
    """A merge in which known lists are merged by key, with the directives `$patch` and
    `$retainKeys` of objects.
    """
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    if directive not in (None, "replace", "merge", "delete"):
        raise status.bad_request(f"Unknown patch type: {directive}")
    merged = dict(current) if isinstance(current, dict) and directive != "replace" else {}
    if (retained := patch.get("$retainKeys")) is not None:
        merged = {key: value for key, value in merged.items() if key in retained}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, list):
            merged[key] = _merge_list(key, merged.get(key, []), value)
        elif not key.startswith("$"):
            merged[key] = strategic_merge(merged.get(key), value)
    return merged


def _merge_list(field: str, current: list[Any], patch: list[Any]) -> list[Any]:
    if field in _SETS:
        return current + [item for item in patch if item not in current]
    merge_key = MERGE_KEYS.get(field)
    if merge_key is None or not all(isinstance(item, dict) for item in current + patch):
        return patch
    if any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if "$patch" not in item]
    merged = {item.get(merge_key): item for item in current}
    for item in patch:
        key = item.get(merge_key)
        if key is None:
            raise status.bad_request(
                f"map: {item} does not contain declared merge key: {merge_key}"
            )
        if item.get("$patch") == "delete":
            merged.pop(key, None)
        else:
            merged[key] = strategic_merge(merged.get(key), item)
    return list(merged.values())
