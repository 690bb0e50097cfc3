"""What the server serves: the resources, how a path names them, and the discovery documents that
list them.
"""

from dataclasses import dataclass, field

from kubernetes_server import status
from kubernetes_server.status import Object

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
VERSION: Object = {
    "major": "1",
    "minor": "33",
    "gitVersion": "v1.33.0",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2025-04-23T13:07:12Z",
    "goVersion": "go1.24.2",
    "compiler": "gc",
    "platform": "linux/amd64",
}


@dataclass(frozen=True)
class Resource:
    """One kind of object; `model` is its class in the official client, whose fields are the API's
    schema.
    """

    group: str
    version: str
    kind: str
    plural: str
    model: str
    namespaced: bool = True
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[str, ...] = ()
    fields: tuple[str, ...] = field(default=(), compare=False)
    """The fields that a field selector may name, besides metadata.name and metadata.namespace."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The name by which error messages call the resource: `jobs.batch`, `pods`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


NAMESPACES = Resource(
    "", "v1", "Namespace", "namespaces", "V1Namespace", namespaced=False, fields=("status.phase",)
)
PODS = Resource(
    "",
    "v1",
    "Pod",
    "pods",
    "V1Pod",
    subresources=("log", "status"),
    fields=(
        "spec.hostNetwork",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.nominatedNodeName",
        "status.phase",
        "status.podIP",
    ),
)
SECRETS = Resource("", "v1", "Secret", "secrets", "V1Secret", fields=("type",))
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps", "V1ConfigMap")
SERVICE_ACCOUNTS = Resource("", "v1", "ServiceAccount", "serviceaccounts", "V1ServiceAccount")
QUOTAS = Resource(
    "", "v1", "ResourceQuota", "resourcequotas", "V1ResourceQuota", subresources=("status",)
)
EVENTS = Resource(
    "",
    "v1",
    "Event",
    "events",
    "CoreV1Event",
    fields=(
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.resourceVersion",
        "involvedObject.uid",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
)
JOBS = Resource(
    "batch", "v1", "Job", "jobs", "V1Job", subresources=("status",), fields=("status.successful",)
)
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io",
    "v1",
    "SelfSubjectAccessReview",
    "selfsubjectaccessreviews",
    "V1SelfSubjectAccessReview",
    namespaced=False,
    verbs=("create",),
)
RESOURCES = (
    NAMESPACES,
    PODS,
    SECRETS,
    CONFIG_MAPS,
    SERVICE_ACCOUNTS,
    QUOTAS,
    EVENTS,
    JOBS,
    ACCESS_REVIEWS,
)
_BY_PATH = {(resource.group, resource.version, resource.plural): resource for resource in RESOURCES}


@dataclass(frozen=True)
class Target:
    """What the path of a request names: a resource, and maybe a namespace, an object and its
    subresource.
    """

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def target(path: str) -> Target:
    """What `/api/v1/…` or `/apis/GROUP/VERSION/…` names; 404 if it is nothing that is served.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris
    """
    root, *parts = path.strip("/").split("/")
    if root == "apis" and len(parts) >= 3:
        group, version, *rest = parts
    elif root == "api" and len(parts) >= 2:
        group, (version, *rest) = "", parts
    else:
        raise status.no_such_path()
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3:
        _, namespace, *rest = rest
    resource = _BY_PATH.get((group, version, rest[0]))
    name, subresource = (*rest[1:], "", "")[:2]
    known = (
        resource is not None
        and len(rest) <= 3
        and (not subresource or subresource in resource.subresources)
    )
    if resource is None or not known or (namespace and not resource.namespaced):
        raise status.no_such_path()
    return Target(resource, namespace, name, subresource)


def discovery(path: str) -> Object | None:
    """The discovery document at the path; None if there is none."""
    groups = sorted(
        {(resource.group, resource.version) for resource in RESOURCES if resource.group}
    )
    documents: dict[str, Object] = {
        "/version": VERSION,
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/apis": {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [_group(*group) for group in groups],
        },
        "/api/v1": _resource_list("", "v1"),
    }
    for group, version in groups:
        documents[f"/apis/{group}"] = {"kind": "APIGroup", "apiVersion": "v1"} | _group(
            group, version
        )
        documents[f"/apis/{group}/{version}"] = _resource_list(group, version)
    return documents.get(path.rstrip("/"))


def _group(name: str, version: str) -> Object:
    served = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [served], "preferredVersion": served}


def _resource_list(group: str, version: str) -> Object:
    served = [
        resource for resource in RESOURCES if (resource.group, resource.version) == (group, version)
    ]
    entries = [entry for resource in served for entry in _entries(resource)]
    api_version = f"{group}/{version}" if group else version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version,
        "resources": entries,
    }


def _entries(resource: Resource) -> list[Object]:
    common: Object = {"singularName": "", "namespaced": resource.namespaced, "kind": resource.kind}
    own = common | {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "verbs": list(resource.verbs),
    }
    verbs = {"log": ["get"], "status": ["get", "patch", "update"]}
    return [own] + [
        common | {"name": f"{resource.plural}/{part}", "verbs": verbs[part]}
        for part in resource.subresources
    ]
