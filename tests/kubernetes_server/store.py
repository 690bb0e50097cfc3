"""The objects, the one revision counter over all of them, and every change since the start: what
etcd is to Kubernetes.

All of it happens on the server's event loop, so nothing here takes a lock. Objects in the store are
never changed in place: whoever changes one puts a changed copy.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kubernetes_server import status
from kubernetes_server.resources import Resource
from kubernetes_server.status import Object

Key = tuple[Resource, str, str]


@dataclass(frozen=True)
class Change:
    """One write: what became of an object, and what it was before."""

    revision: int
    type: str
    """`ADDED`, `MODIFIED` or `DELETED`."""
    resource: Resource
    object: Object
    previous: Object | None


class Store:
    """Objects by resource, namespace and name."""

    def __init__(self) -> None:
        # As in a cluster that has been there for a while: the first versions are long gone.
        self.revision = 1000
        self.compacted = 1000
        """Watches and lists that ask for anything before this revision are answered 410 Gone."""
        self.subscribers: set[Callable[[Change], None]] = set()
        self._objects: dict[Key, Object] = {}
        self._by_uid: dict[str, Key] = {}
        self._changes: list[Change] = []

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self._objects.get((resource, namespace, name))

    def find(self, uid: str) -> tuple[Resource, Object] | None:
        """The object with this uid."""
        key = self._by_uid.get(uid)
        return (key[0], self._objects[key]) if key else None

    def everything(self) -> Iterator[tuple[Resource, Object]]:
        """All objects, as they are when this is called."""
        return iter([(key[0], found) for key, found in self._objects.items()])

    def select(
        self, resource: Resource, namespace: str = "", revision: int | None = None
    ) -> list[Object]:
        """The objects of the namespace (of all, if it is empty) in order of their keys, now or at a
        revision.
        """
        objects = self._objects if revision in (None, self.revision) else self._past(revision or 0)
        wanted = (key for key in objects if key[0] == resource and namespace in ("", key[1]))
        return [objects[key] for key in sorted(wanted, key=lambda key: key[1:])]

    def count(self, counted: str, namespace: str) -> int:
        """How many objects there are of what a quota counts: `pods`, `count/jobs.batch` …"""
        keys = [key for key in self._objects if key[1] == namespace]
        return sum(counted in (key[0].plural, f"count/{key[0].qualified}") for key in keys)

    def put(self, resource: Resource, changed: Object) -> Object:
        """Store an object; one that is as it was stays as it is, without a new version, as in
        Kubernetes.
        """
        key = _key(resource, changed)
        previous = self._objects.get(key)
        if previous is not None and _without_version(previous) == _without_version(changed):
            return previous
        stored = self._next_version(changed)
        self._objects[key] = stored
        self._by_uid[stored["metadata"]["uid"]] = key
        self._publish("MODIFIED" if previous else "ADDED", resource, stored, previous)
        return stored

    def remove(self, resource: Resource, removed: Object) -> Object:
        """Remove an object and return its last state, which has a version of its own."""
        previous = self._objects.pop(_key(resource, removed))
        del self._by_uid[previous["metadata"]["uid"]]
        last = self._next_version(removed)
        self._publish("DELETED", resource, last, previous)
        return last

    def changes_after(self, revision: int) -> list[Change]:
        """What happened after the revision; 410 if that is too long ago."""
        if revision < self.compacted:
            raise status.expired(f"too old resource version: {revision} ({self.compacted})")
        return [change for change in self._changes if change.revision > revision]

    def compact(self) -> None:
        """Forget, for those who ask, all that has happened so far."""
        self.revision += 1
        self.compacted = self.revision

    def _past(self, revision: int) -> dict[Key, Object]:
        objects: dict[Key, Object] = {}
        for change in self._changes:
            if change.revision > revision:
                break
            key = _key(change.resource, change.object)
            objects.pop(key, None)
            if change.type != "DELETED":
                objects[key] = change.object
        return objects

    def _next_version(self, changed: Object) -> Object:
        self.revision += 1
        return changed | {"metadata": changed["metadata"] | {"resourceVersion": str(self.revision)}}

    def _publish(
        self, kind: str, resource: Resource, current: Object, previous: Object | None
    ) -> None:
        change = Change(self.revision, kind, resource, current, previous)
        self._changes.append(change)
        for deliver in list(self.subscribers):
            deliver(change)


def _key(resource: Resource, stored: Object) -> Key:
    metadata = stored["metadata"]
    return (resource, metadata.get("namespace", ""), metadata["name"])


def _without_version(stored: Object) -> Object:
    metadata = {key: value for key, value in stored["metadata"].items() if key != "resourceVersion"}
    return stored | {"metadata": metadata}
