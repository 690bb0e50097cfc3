"""The controllers without which the API itself would not behave as it does: service accounts and quotas."""

from kubernetes_server import defaults
from kubernetes_server.resources import NAMESPACES, QUOTAS, SERVICE_ACCOUNTS
from kubernetes_server.status import Object
from kubernetes_server.store import Change, Store


class Controllers:
    """Act on each change, at once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        store.subscribers.add(self._see)

    def _see(self, change: Change) -> None:
        if change.resource == NAMESPACES and change.type == "ADDED":
            self._create_service_account(change.object["metadata"]["name"])
        if change.resource != QUOTAS or change.type == "ADDED":
            self._count(change.object["metadata"].get("namespace", ""))

    def _create_service_account(self, namespace: str) -> None:
        """Every namespace gets its account `default`."""
        account: Object = {"kind": SERVICE_ACCOUNTS.kind, "apiVersion": SERVICE_ACCOUNTS.api_version}
        account["metadata"] = {"name": "default", "namespace": namespace}
        self.store.put(SERVICE_ACCOUNTS, defaults.prepare(SERVICE_ACCOUNTS, account))

    def _count(self, namespace: str) -> None:
        """Write what is used of each quota of the namespace."""
        for quota in self.store.select(QUOTAS, namespace) if namespace else []:
            hard = quota["spec"].get("hard", {})
            used = {counted: str(self.store.count(counted, namespace)) for counted in hard}
            self.store.put(QUOTAS, quota | {"status": {"hard": hard, "used": used}})
