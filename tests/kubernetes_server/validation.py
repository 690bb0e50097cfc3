"""What Kubernetes checks of an object before it stores it; the answer is 422 with a cause for each
fault.
"""

import base64
import json
from collections.abc import Callable

from kubernetes_server import job_rules, metadata, names, pod_rules
from kubernetes_server.causes import Causes, forbidden, invalid, required, too_long, unchanged
from kubernetes_server.resources import CONFIG_MAPS, EVENTS, JOBS, PODS, SECRETS, Resource
from kubernetes_server.status import Cause, Object

_SECRET_BYTES = 1024 * 1024
_NEEDED_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
_CHANGEABLE_IN_POD = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations")


def of_new(resource: Resource, created: Object) -> list[Cause]:
    """What is wrong with a new object."""
    rules = _NEW.get(resource, _no_rules)
    # The metadata of events is not checked: their names end in a dot and digits.
    of_metadata = () if resource == EVENTS else metadata.of_new(resource, created["metadata"])
    return [*of_metadata, *rules(created)]


def of_change(resource: Resource, current: Object, changed: Object) -> list[Cause]:
    """What is wrong with a changed object, and with the change."""
    rules, changes = _CHANGED.get(resource, _no_rules), _CHANGES.get(resource)
    return [
        *metadata.of_new(resource, changed["metadata"]),
        *metadata.of_change(current["metadata"], changed["metadata"]),
        *rules(changed),
        *(changes(current, changed) if changes else ()),
    ]


def warnings(resource: Resource, sent: Object) -> list[str]:
    """What the API server accepts with a warning."""
    if resource == PODS:
        return pod_rules.warnings(sent["spec"], "spec")
    return (
        pod_rules.warnings(sent["spec"]["template"]["spec"], "spec.template.spec")
        if resource == JOBS
        else []
    )


def _no_rules(_: Object) -> Causes:
    yield from ()


def _pod(pod: Object) -> Causes:
    yield from pod_rules.spec(pod["spec"], "spec")
    # Of a pod alone: the template of a Job is not asked.
    for field in ("containers", "initContainers"):
        for index, container in enumerate(pod["spec"].get(field, [])):
            image = container.get("image", "")
            if image != image.strip():
                detail = "must not have leading or trailing whitespace"
                yield invalid(f"spec.{field}[{index}].image", image, detail)


def _pod_change(before: Object, after: Object) -> Causes:
    if _fixed_in_pod(before["spec"]) != _fixed_in_pod(after["spec"]):
        fields = (
            "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` "
            "(only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if "
            "it was previously negative)"
        )
        yield forbidden("spec", f"pod updates may not change fields other than {fields}")


def _fixed_in_pod(spec: Object) -> Object:
    fixed = {key: value for key, value in spec.items() if key not in _CHANGEABLE_IN_POD}
    for field in ("containers", "initContainers"):
        if field in fixed:
            fixed[field] = [container | {"image": ""} for container in fixed[field]]
    return fixed


def _secret(secret: Object) -> Causes:
    data = secret.get("data", {})
    yield from _keys(data)
    if sum(len(base64.b64decode(value)) for value in data.values()) > _SECRET_BYTES:
        yield too_long("data", _SECRET_BYTES)
    for key in _NEEDED_KEYS.get(secret["type"], ()):
        if key not in data:
            yield required(f"data[{key}]")
        elif key.startswith(".docker") and not _is_json(data[key]):
            yield invalid(
                f"data[{key}]",
                "<secret contents redacted>",
                "invalid character looking for beginning of value",
            )


def _secret_change(before: Object, after: Object) -> Causes:
    yield from unchanged("type", before["type"], after["type"])
    if before.get("immutable"):
        if before.get("data") != after.get("data"):
            yield forbidden("data", "field is immutable when `immutable` is set")
        if not after.get("immutable"):
            yield forbidden("immutable", "field is immutable when `immutable` is set")


def _config_map(config_map: Object) -> Causes:
    return _keys(config_map.get("data", {}) | config_map.get("binaryData", {}))


def _keys(data: dict[str, str]) -> Causes:
    for key in data:
        yield from (invalid(f"data[{key}]", key, fault) for fault in names.config_key(key))


def _event(event: Object) -> Causes:
    involved = event.get("involvedObject", {})
    if involved.get("namespace", "") != event["metadata"]["namespace"]:
        yield invalid(
            "involvedObject.namespace",
            involved.get("namespace", ""),
            "does not match event.namespace",
        )


def _is_json(encoded: str) -> bool:
    try:
        json.loads(base64.b64decode(encoded))
    except ValueError:
        return False
    return True


_NEW: dict[Resource, Callable[[Object], Causes]] = {
    CONFIG_MAPS: _config_map,
    EVENTS: _event,
    JOBS: job_rules.of_new,
    PODS: _pod,
    SECRETS: _secret,
}
_CHANGED = _NEW | {JOBS: job_rules.of_any}
_CHANGES: dict[Resource, Callable[[Object, Object], Causes]] = {
    JOBS: job_rules.of_change,
    PODS: _pod_change,
    SECRETS: _secret_change,
}
