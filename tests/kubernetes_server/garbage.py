"""The garbage collector: dependents follow their owners, in the way that the deletion asked for.

https://kubernetes.io/docs/concepts/architecture/garbage-collection/
Kubernetes collects in the background. Here it is done after each write, so a test never has to wait
for it, but for what is deleted in the foreground: that stays for a moment, as there.
"""

import asyncio
from typing import Any

from kubernetes_server import clock
from kubernetes_server.resources import NAMESPACES, PODS, Resource
from kubernetes_server.status import Object
from kubernetes_server.store import Store

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class GarbageCollector:
    """Deletes what has been marked for deletion and whose finalizers are done."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.pace = 0.0
        """Seconds after which it comes by to see what is deleted in the foreground."""
        self._unseen: set[str] = set()
        self.keeps_terminating = False
        """Whether pods stay `Terminating`, as on a node that is lost, instead of ending at once."""

    def mark(
        self, resource: Resource, doomed: Object, finalizer: str | None, grace: int | None
    ) -> Object:
        """Begin the deletion: set its time, and add what must be done before it."""
        metadata: Object = {
            "deletionTimestamp": clock.now(),
            "deletionGracePeriodSeconds": grace or 0,
        }
        finalizers = [
            name
            for name in doomed["metadata"].get("finalizers", [])
            if name not in (FOREGROUND, ORPHAN)
        ]
        if finalizer:
            finalizers.append(finalizer)
        if finalizer == FOREGROUND and self.pace:
            self._come_by(doomed["metadata"]["uid"])
        if finalizers:
            metadata["finalizers"] = finalizers
        kept = {
            key: value
            for key, value in doomed["metadata"].items()
            if key not in ("finalizers", *metadata)
        }
        if "deletionTimestamp" in doomed["metadata"]:
            metadata["deletionTimestamp"] = doomed["metadata"]["deletionTimestamp"]
        elif "generation" in kept:
            kept["generation"] += 1
        changed = doomed | {"metadata": kept | metadata}
        if resource == NAMESPACES:
            changed |= {"status": {"phase": "Terminating"}}
        return self.store.put(resource, changed)

    def put(self, resource: Resource, changed: Object) -> Object:
        """Store an object; one that is to be deleted and that nothing holds any more goes by that,
        in one change.
        """
        metadata = changed["metadata"]
        held = (
            metadata.get("finalizers")
            or metadata.get("deletionGracePeriodSeconds")
            or resource == NAMESPACES
        )
        if "deletionTimestamp" in metadata and not held:
            return self.store.remove(resource, changed)
        return self.store.put(resource, changed)

    def _come_by(self, uid: str) -> None:
        """See to an object later."""

        def see() -> None:
            self._unseen.discard(uid)
            self.collect()

        self._unseen.add(uid)
        asyncio.get_running_loop().call_later(self.pace, see)

    def collect(self) -> None:
        """Delete what can be deleted by now, until nothing more follows from it."""
        moved = True
        while moved:
            steps = [
                self._step(resource, candidate) for resource, candidate in self.store.everything()
            ]
            moved = any(steps)

    def _step(self, resource: Resource, candidate: Object) -> bool:
        """Take one object one step further; whether anything was done."""
        metadata = candidate["metadata"]
        current = self.store.get(resource, metadata.get("namespace", ""), metadata["name"])
        if current is not candidate:
            return False
        if "deletionTimestamp" not in metadata:
            return self._lost_its_owners(resource, candidate)
        finalizers = metadata.get("finalizers", [])
        if ORPHAN in finalizers:
            self._orphan_dependents(metadata["uid"])
            return self._drop_finalizer(resource, candidate, ORPHAN)
        if FOREGROUND in finalizers:
            unseen = metadata["uid"] in self._unseen
            return not unseen and self._delete_in_foreground(resource, candidate)
        if finalizers or (resource == PODS and self.keeps_terminating):
            return False
        if resource == NAMESPACES and self._content(metadata["name"]):
            return self._delete_all(self._content(metadata["name"]))
        self.store.remove(resource, candidate)
        return True

    def _content(self, namespace: str) -> list[tuple[Resource, Object]]:
        everything = self.store.everything()
        return [
            (resource, found)
            for resource, found in everything
            if found["metadata"].get("namespace") == namespace
        ]

    def _delete_all(self, doomed: list[tuple[Resource, Object]]) -> bool:
        """Delete those that are not being deleted yet; whether there were any."""
        fresh = [
            (resource, found)
            for resource, found in doomed
            if "deletionTimestamp" not in found["metadata"]
        ]
        for resource, found in fresh:
            self.delete(resource, found)
        return bool(fresh)

    def delete(
        self,
        resource: Resource,
        doomed: Object,
        finalizer: str | None = None,
        grace: int | None = None,
    ) -> None:
        """Delete with what the policy asks for; at once if there is nothing to be done before."""
        if resource == PODS:
            grace = _grace_period(doomed, grace)
        if finalizer or doomed["metadata"].get("finalizers") or resource == NAMESPACES or grace:
            self.mark(resource, doomed, finalizer, grace)
        else:
            self.store.remove(resource, doomed)

    def _delete_in_foreground(self, resource: Resource, owner: Object) -> bool:
        dependents = [
            (kind, found)
            for kind, found in self._dependents(owner["metadata"]["uid"])
            if any(
                reference.get("blockOwnerDeletion") and reference["uid"] == owner["metadata"]["uid"]
                for reference in found["metadata"]["ownerReferences"]
            )
        ]
        if not dependents:
            return self._drop_finalizer(resource, owner, FOREGROUND)
        return self._delete_all(dependents)

    def _lost_its_owners(self, resource: Resource, dependent: Object) -> bool:
        """Delete a dependent all of whose owners are gone, or never were."""
        owners = dependent["metadata"].get("ownerReferences", [])
        if not owners or any(self._is_there(owner, dependent) for owner in owners):
            return False
        self.delete(resource, dependent)
        return True

    def _is_there(self, owner: Object, dependent: Object) -> bool:
        found = self.store.find(owner["uid"])
        if found is None:
            return False
        resource, existing = found
        same_namespace = existing["metadata"].get("namespace") in (
            None,
            dependent["metadata"].get("namespace"),
        )
        named = (existing["metadata"]["name"], resource.kind, resource.api_version)
        return same_namespace and named == (owner["name"], owner["kind"], owner["apiVersion"])

    def _dependents(self, uid: str) -> list[tuple[Resource, Object]]:
        return [
            (resource, found)
            for resource, found in self.store.everything()
            if any(owner["uid"] == uid for owner in found["metadata"].get("ownerReferences", []))
        ]

    def _orphan_dependents(self, uid: str) -> None:
        for resource, found in self._dependents(uid):
            owners = [
                owner for owner in found["metadata"]["ownerReferences"] if owner["uid"] != uid
            ]
            self.store.put(resource, _with_metadata(found, "ownerReferences", owners))

    def _drop_finalizer(self, resource: Resource, held: Object, finalizer: str) -> bool:
        left = [name for name in held["metadata"]["finalizers"] if name != finalizer]
        self.put(resource, _with_metadata(held, "finalizers", left))
        return True


def _with_metadata(changed: Object, key: str, value: list[Any]) -> Object:
    """A copy with another list in its metadata, or without it if the list is empty."""
    metadata = {name: kept for name, kept in changed["metadata"].items() if name != key}
    return changed | {"metadata": metadata | ({key: value} if value else {})}


def _grace_period(pod: Object, asked: int | None) -> int:
    """Seconds that the pod gets: none if no kubelet runs it (any more)."""
    if not pod["spec"].get("nodeName") or pod.get("status", {}).get("phase") in (
        "Succeeded",
        "Failed",
    ):
        return 0
    return int(pod["spec"].get("terminationGracePeriodSeconds", 30)) if asked is None else asked
