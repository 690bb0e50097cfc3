"""The rules for a pod's spec: containers, their environment, mounts and resources, and where the
pod may run.

https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/validation/validation.go. Probes,
lifecycle hooks, inter-pod affinity, ephemeral containers and the rarer kinds of volume are decoded
strictly, but not checked further.
"""

from decimal import Decimal
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from kubernetes_server import metadata, names
from kubernetes_server.causes import (
    Causes,
    duplicates,
    forbidden,
    invalid,
    missing,
    named,
    not_negative,
    one_of,
    required,
    within,
)
from kubernetes_server.status import Object

MAX_INT32 = 2**31 - 1
_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")
_STANDARD_RESOURCES = ("cpu", "ephemeral-storage", "memory")
_VARIABLE_SOURCES = (
    "configMapKeyRef",
    "fieldRef",
    "fileKeyRef",
    "resourceFieldRef",
    "secretKeyRef",
)
_NEEDED_IN_VOLUME = {
    "configMap": "name",
    "csi": "driver",
    "hostPath": "path",
    "nfs": "server",
    "persistentVolumeClaim": "claimName",
    "secret": "secretName",
}


def spec(pod: Object, path: str) -> Causes:
    """What is wrong with a PodSpec."""
    volumes = pod.get("volumes", [])
    yield from duplicates(
        f"{path}.volumes",
        ((f"[{i}].name", volume["name"]) for i, volume in enumerate(volumes) if volume.get("name")),
    )
    for index, volume in enumerate(volumes):
        yield from _volume(volume, f"{path}.volumes[{index}]")
    yield from _all_containers(pod, {volume.get("name", "") for volume in volumes}, path)
    yield from one_of(
        f"{path}.restartPolicy", pod["restartPolicy"], ("Always", "Never", "OnFailure")
    )
    dns_policies = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
    yield from one_of(f"{path}.dnsPolicy", pod["dnsPolicy"], dns_policies)
    yield from within(
        f"{path}.activeDeadlineSeconds", pod.get("activeDeadlineSeconds"), 1, MAX_INT32
    )
    yield from not_negative(
        f"{path}.terminationGracePeriodSeconds", pod.get("terminationGracePeriodSeconds")
    )
    yield from _where(pod, path)
    yield from _security(pod["securityContext"], f"{path}.securityContext")


def warnings(pod: Object, path: str) -> list[str]:
    """What the API server warns of, but accepts.

    https://github.com/kubernetes/kubernetes/blob/master/pkg/api/pod/warnings.go
    """
    found = [
        f'{path}.imagePullSecrets[{index}].name: invalid empty name ""'
        for index, secret in enumerate(pod.get("imagePullSecrets", []))
        if not secret.get("name")
    ]
    for field in ("initContainers", "containers"):
        for number, container in enumerate(pod.get(field, [])):
            seen: set[str] = set()
            for index, variable in enumerate(container.get("env", [])):
                if variable["name"] in seen:
                    what = f'hides previous definition of "{variable["name"]}", which may be dropped when using apply'
                    found.append(f"{path}.{field}[{number}].env[{index}]: {what}")
                seen.add(variable["name"])
    return found


def _all_containers(pod: Object, volumes: set[str], path: str) -> Causes:
    if not pod.get("containers"):
        yield required(f"{path}.containers")
    everyone = [
        (f".{field}[{index}]", container)
        for field in ("containers", "initContainers")
        for index, container in enumerate(pod.get(field, []))
    ]
    yield from duplicates(
        path, ((f"{place}.name", one["name"]) for place, one in everyone if one.get("name"))
    )
    for place, container in everyone:
        yield from _container(container, volumes, f"{path}{place}")


def _container(container: Object, volumes: set[str], path: str) -> Causes:
    yield from named(f"{path}.name", container.get("name"), names.dns_label)
    image = container.get("image", "")
    if not image:
        yield required(f"{path}.image")
    yield from one_of(
        f"{path}.imagePullPolicy",
        container.get("imagePullPolicy"),
        ("Always", "IfNotPresent", "Never"),
    )
    policies = ("FallbackToLogsOnError", "File")
    yield from one_of(
        f"{path}.terminationMessagePolicy", container["terminationMessagePolicy"], policies
    )
    for index, variable in enumerate(container.get("env", [])):
        yield from _variable(variable, f"{path}.env[{index}]")
    for index, source in enumerate(container.get("envFrom", [])):
        yield from _variables_from(source, f"{path}.envFrom[{index}]")
    for index, port in enumerate(container.get("ports", [])):
        yield from within(
            f"{path}.ports[{index}].containerPort", port.get("containerPort", 0), 1, 65535
        )
    yield from _mounts(container.get("volumeMounts", []), volumes, f"{path}.volumeMounts")
    yield from _resources(container.get("resources", {}), f"{path}.resources")
    yield from _container_security(container.get("securityContext", {}), f"{path}.securityContext")


def _variable(variable: Object, path: str) -> Causes:
    yield from named(f"{path}.name", variable.get("name"), names.environment_variable)
    if "valueFrom" not in variable:
        return
    source, path = variable["valueFrom"], f"{path}.valueFrom"
    kinds = [kind for kind in _VARIABLE_SOURCES if kind in source]
    if variable.get("value"):
        yield invalid(path, "", "may not be specified when `value` is not empty")
    if not kinds:
        choice = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        yield invalid(path, "", f"must specify one of: {choice}")
    if len(kinds) > 1:
        yield invalid(path, "", "may not have more than one field specified at a time")
    for kind in kinds:
        yield from _reference(source[kind], kind, f"{path}.{kind}")


def _reference(reference: Object, kind: str, path: str) -> Causes:
    if kind in ("configMapKeyRef", "secretKeyRef"):
        yield from named(f"{path}.name", reference.get("name"), names.dns_subdomain)
        yield from named(f"{path}.key", reference.get("key"), names.config_key)
    elif kind == "fieldRef" and not reference.get("fieldPath"):
        yield required(f"{path}.fieldPath")
    elif kind == "resourceFieldRef" and not reference.get("resource"):
        yield required(f"{path}.resource")


def _variables_from(source: Object, path: str) -> Causes:
    kinds = [kind for kind in ("configMapRef", "secretRef") if kind in source]
    if not kinds:
        yield invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")
    if len(kinds) > 1:
        yield invalid(path, "", "may not have more than one field specified at a time")
    for kind in kinds:
        yield from named(f"{path}.{kind}.name", source[kind].get("name"), names.dns_subdomain)


def _mounts(mounts: list[Object], volumes: set[str], path: str) -> Causes:
    paths: set[str] = set()
    for index, mount in enumerate(mounts):
        here, name, mount_path = (
            f"{path}[{index}]",
            mount.get("name", ""),
            mount.get("mountPath", ""),
        )
        if not name:
            yield required(f"{here}.name")
        elif name not in volumes:
            yield missing(f"{here}.name", name)
        if not mount_path:
            yield required(f"{here}.mountPath")
        if mount_path in paths:
            yield invalid(f"{here}.mountPath", mount_path, "must be unique")
        paths.add(mount_path)
        if mount.get("subPath") and mount.get("subPathExpr"):
            yield invalid(
                f"{here}.subPathExpr",
                mount["subPathExpr"],
                "subPathExpr and subPath are mutually exclusive",
            )
        for key in ("subPath", "subPathExpr"):  # Kubernetes does not say of which mount
            yield from _relative_path(mount.get(key, ""), f"{path}.{key}")


def _relative_path(text: str, path: str) -> Causes:
    if text.startswith("/"):
        yield invalid(path, text, "must be a relative path")
    if ".." in PurePosixPath(text).parts:
        yield invalid(path, text, "must not contain '..'")


def _resources(resources: Object, path: str) -> Causes:
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            yield from _amount(name, amount, f"{path}.{kind}[{name}]")
    for name, amount in requests.items():
        extended = _is_extended(name)
        if name not in limits:
            if extended:
                yield required(
                    f"{path}.limits", "Limit must be set for non overcommitable resources"
                )
        elif extended and _quantity(amount) != _quantity(limits[name]):
            yield invalid(
                f"{path}.requests", amount, f"must be equal to {name} limit of {limits[name]}"
            )
        elif _quantity(amount) > _quantity(limits[name]):
            yield invalid(
                f"{path}.requests",
                amount,
                f"must be less than or equal to {name} limit of {limits[name]}",
            )


def _amount(name: str, amount: str, path: str) -> Causes:
    yield from (invalid(path, name, fault) for fault in names.qualified_name(name))
    if "/" not in name and name not in _STANDARD_RESOURCES and not name.startswith("hugepages-"):
        yield invalid(path, name, "must be a standard resource type or fully qualified")
        yield invalid(path, name, "must be a standard resource for containers")
    quantity = _quantity(amount)
    if quantity < 0:
        yield invalid(path, amount, "must be greater than or equal to 0")
    if _is_extended(name) and quantity != quantity.to_integral_value():
        yield invalid(path, amount, "must be an integer")


def _quantity(amount: str) -> Decimal:
    return Decimal(parse_quantity(amount))  # type: ignore[no-untyped-call]


def _is_extended(name: str) -> bool:
    """Whether it is a resource that some device plugin offers, which cannot be overcommitted."""
    return "/" in name and "kubernetes.io/" not in name


def _container_security(context: Object, path: str) -> Causes:
    yield from _security(context, path)
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            yield invalid(path, None, detail)
        if {"CAP_SYS_ADMIN", "SYS_ADMIN"} & set(context.get("capabilities", {}).get("add", [])):
            yield invalid(
                path,
                None,
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            )


def _security(context: Object, path: str) -> Causes:
    for key in ("runAsUser", "runAsGroup", "fsGroup"):
        yield from within(f"{path}.{key}", context.get(key), 0, MAX_INT32)
    profile = context.get("seccompProfile")
    if profile is None:
        return
    kind, local = profile.get("type"), profile.get("localhostProfile")
    if not kind:
        yield required(f"{path}.seccompProfile.type", "type is required when seccompProfile is set")
    yield from one_of(
        f"{path}.seccompProfile.type", kind or None, ("Localhost", "RuntimeDefault", "Unconfined")
    )
    if kind == "Localhost" and not local:
        yield required(
            f"{path}.seccompProfile.localhostProfile", "must be set when seccomp type is Localhost"
        )
    if kind != "Localhost" and local is not None:
        yield invalid(
            f"{path}.seccompProfile.localhostProfile",
            local,
            "can only be set when seccomp type is Localhost",
        )


def _volume(volume: Object, path: str) -> Causes:
    yield from named(f"{path}.name", volume.get("name"), names.dns_label)
    kinds = [kind for kind in volume if kind != "name"]
    yield from (
        forbidden(f"{path}.{kind}", "may not specify more than 1 volume type") for kind in kinds[1:]
    )
    for kind in kinds:
        source, here = volume[kind], f"{path}.{kind}"
        needed = _NEEDED_IN_VOLUME.get(kind)
        if needed and not source.get(needed):
            yield required(f"{here}.{needed}")
        yield from within(f"{here}.defaultMode", source.get("defaultMode"), 0, 0o777)
        yield from _items(source.get("items", []), f"{here}.items")
        for index, part in enumerate(source.get("sources", [])):
            yield from _projection(part, f"{here}.sources[{index}]")


def _items(items: list[Object], path: str) -> Causes:
    for index, item in enumerate(items):
        for key in ("key", "path"):
            if not item.get(key):
                yield required(f"{path}[{index}].{key}")
        yield from _relative_path(item.get("path", ""), f"{path}[{index}].path")


def _projection(source: Object, path: str) -> Causes:
    if len(source) != 1:
        yield forbidden(
            path,
            "may not specify more than 1 volume type" if source else "must specify a volume type",
        )
    for kind in ("configMap", "secret"):
        if kind in source:
            yield from named(f"{path}.{kind}.name", source[kind].get("name"), names.dns_subdomain)
            yield from _items(source[kind].get("items", []), f"{path}.{kind}.items")
    token = source.get("serviceAccountToken")
    if token is not None:
        if not token.get("path"):
            yield required(f"{path}.serviceAccountToken.path")
        if token["expirationSeconds"] < 600:
            detail = "may not specify a duration less than 10 minutes"
            yield invalid(
                f"{path}.serviceAccountToken.expirationSeconds", token["expirationSeconds"], detail
            )


def _where(pod: Object, path: str) -> Causes:
    yield from metadata.labels(pod.get("nodeSelector", {}), f"{path}.nodeSelector")
    for key in ("serviceAccountName", "priorityClassName", "runtimeClassName", "nodeName"):
        if pod.get(key):
            yield from named(f"{path}.{key}", pod[key], names.dns_subdomain)
    for index, toleration in enumerate(pod.get("tolerations", [])):
        yield from _toleration(toleration, f"{path}.tolerations[{index}]")
    affinity = pod.get("affinity", {}).get("nodeAffinity", {})
    if needed := affinity.get("requiredDuringSchedulingIgnoredDuringExecution"):
        here = f"{path}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
        terms = needed.get("nodeSelectorTerms", [])
        if not terms:
            yield required(here, "must have at least one node selector term")
        yield from chain.from_iterable(
            _node_term(term, f"{here}[{index}]") for index, term in enumerate(terms)
        )


def _node_term(term: Object, path: str) -> Causes:
    for index, expression in enumerate(term.get("matchExpressions", [])):
        here, operator, values = (
            f"{path}.matchExpressions[{index}]",
            expression.get("operator"),
            expression.get("values"),
        )
        if operator in ("In", "NotIn") and not values:
            yield required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            yield forbidden(
                f"{here}.values",
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )
        elif operator not in ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"):
            yield invalid(f"{here}.operator", operator, "not a valid selector operator")
        yield from named(f"{here}.key", expression.get("key"), names.qualified_name)


def _toleration(toleration: Object, path: str) -> Causes:
    key, operator, effect = (
        toleration.get("key"),
        toleration.get("operator"),
        toleration.get("effect"),
    )
    if key:
        yield from (invalid(f"{path}.key", key, fault) for fault in names.qualified_name(key))
    elif operator != "Exists":
        detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        yield invalid(f"{path}.operator", operator or "", detail)
    yield from one_of(f"{path}.operator", operator or None, ("Equal", "Exists"))
    yield from one_of(f"{path}.effect", effect or None, _EFFECTS)
    if operator == "Exists" and toleration.get("value"):
        yield invalid(
            f"{path}.operator",
            toleration["value"],
            "value must be empty when `operator` is 'Exists'",
        )
    yield from _toleration_value(operator, toleration.get("value", ""), path)
    if "tolerationSeconds" in toleration and effect != "NoExecute":
        yield invalid(
            f"{path}.effect",
            effect or "",
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        )


def _toleration_value(operator: Any, value: str, path: str) -> Causes:
    if operator in (None, "Equal"):
        yield from (invalid(f"{path}.operator", value, fault) for fault in names.label_value(value))
