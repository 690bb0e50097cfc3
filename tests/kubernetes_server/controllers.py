"""The controllers without which the API itself would not behave as it does.

They give each namespace its service account and the cluster's certificate authority, and count for
quotas.
"""

from kubernetes_server import defaults
from kubernetes_server.resources import CONFIG_MAPS, NAMESPACES, QUOTAS, SERVICE_ACCOUNTS, Resource
from kubernetes_server.status import Object
from kubernetes_server.store import Change, Store

_AUTHORITY = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
"""Of none: this server speaks plain HTTP."""


class Controllers:
    """Act on each change, at once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        store.subscribers.add(self._see)

    def _see(self, change: Change) -> None:
        if change.resource == NAMESPACES and change.type == "ADDED":
            self._furnish(change.object["metadata"]["name"])
        if change.resource != QUOTAS or change.type == "ADDED":
            self._count(change.object["metadata"].get("namespace", ""))

    def _furnish(self, namespace: str) -> None:
        """Every namespace gets its account `default`, and the authority that its pods trust the API
        server by.

        https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-token-volume
        """
        self._create(SERVICE_ACCOUNTS, namespace, "default")
        self._create(CONFIG_MAPS, namespace, "kube-root-ca.crt", data={"ca.crt": _AUTHORITY})

    def _create(self, resource: Resource, namespace: str, name: str, **content: Object) -> None:
        created: Object = {"kind": resource.kind, "apiVersion": resource.api_version, **content}
        created["metadata"] = {"name": name, "namespace": namespace}
        self.store.put(resource, defaults.prepare(resource, created))

    def _count(self, namespace: str) -> None:
        """Write what is used of each quota of the namespace."""
        for quota in self.store.select(QUOTAS, namespace) if namespace else []:
            hard = quota["spec"].get("hard", {})
            used = {counted: str(self.store.count(counted, namespace)) for counted in hard}
            self.store.put(QUOTAS, quota | {"status": {"hard": hard, "used": used}})
