"""The rules for an object's metadata.

https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apimachinery/pkg/api/validation/objectmeta.go
"""

from kubernetes_server import names
from kubernetes_server.causes import (
    Causes,
    forbidden,
    invalid,
    named,
    required,
    too_long,
    unchanged,
)
from kubernetes_server.resources import NAMESPACES, Resource
from kubernetes_server.status import Object

_ANNOTATIONS = 256 * 1024
_STANDARD_FINALIZERS = ("foregroundDeletion", "kubernetes", "orphan")


def of_new(resource: Resource, metadata: Object, path: str = "metadata") -> Causes:
    """What is wrong with the metadata of any object."""
    faults_of_name = names.dns_label if resource == NAMESPACES else names.dns_subdomain
    if prefix := metadata.get("generateName"):
        yield from named(f"{path}.generateName", prefix.rstrip("-") or "-", faults_of_name)
    yield from named(
        f"{path}.name", metadata.get("name"), faults_of_name, "name or generateName is required"
    )
    yield from labels(metadata.get("labels", {}), f"{path}.labels")
    yield from annotations(metadata.get("annotations", {}), f"{path}.annotations")
    yield from _owners(metadata.get("ownerReferences", []), f"{path}.ownerReferences")
    for index, finalizer in enumerate(metadata.get("finalizers", [])):
        yield from _finalizer(finalizer, f"{path}.finalizers[{index}]")


def of_change(before: Object, after: Object, path: str = "metadata") -> Causes:
    """What an update must leave alone."""
    for key in ("name", "namespace", "uid", "creationTimestamp"):
        yield from unchanged(f"{path}.{key}", before.get(key), after.get(key, before.get(key)))
    added = set(after.get("finalizers", [])) - set(before.get("finalizers", []))
    if added and "deletionTimestamp" in before:
        detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {sorted(added)}"
        yield forbidden(f"{path}.finalizers", detail)


def labels(given: dict[str, str], path: str) -> Causes:
    """Keys and values of labels, or of a node selector."""
    for key, value in given.items():
        yield from (invalid(path, key, fault) for fault in names.qualified_name(key))
        yield from (invalid(path, value, fault) for fault in names.label_value(value))


def annotations(given: dict[str, str], path: str) -> Causes:
    """Keys of annotations, and their size together."""
    for key in given:
        yield from (invalid(path, key, fault) for fault in names.qualified_name(key.lower()))
    if sum(len(key.encode()) + len(value.encode()) for key, value in given.items()) > _ANNOTATIONS:
        yield too_long(path, _ANNOTATIONS)


def _owners(owners: list[Object], path: str) -> Causes:
    for owner in owners:  # Kubernetes does not say which of them it is
        if not owner.get("apiVersion"):
            yield invalid(f"{path}.apiVersion", "", "version must not be empty")
        for key in ("kind", "name", "uid"):
            if not owner.get(key):
                yield invalid(f"{path}.{key}", "", "must not be empty")
    controllers = [
        f"{owner.get('kind')}/{owner.get('name')}" for owner in owners if owner.get("controller")
    ]
    if len(controllers) > 1:
        detail = f"Only one reference can have Controller set to true. Found {' and '.join(controllers[:2])}"
        yield invalid(path, None, detail)


def _finalizer(finalizer: str, path: str) -> Causes:
    if not finalizer:
        yield required(path)
    yield from (invalid(path, finalizer, fault) for fault in names.qualified_name(finalizer))
    if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
        yield invalid(
            path, finalizer, "name is neither a standard finalizer name nor is it fully qualified"
        )
