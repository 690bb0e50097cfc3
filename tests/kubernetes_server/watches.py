"""Watches: what changes, one JSON line a change, from exactly after a resourceVersion on.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import asyncio
import json
from dataclasses import dataclass, field

from kubernetes_server.resources import Resource
from kubernetes_server.selectors import Selector
from kubernetes_server.status import ApiError, Object
from kubernetes_server.store import Change


@dataclass(eq=False)
class Watch:
    """One open watch: which objects it is about, and the lines that it has yet to send (None ends
    it).
    """

    resource: Resource
    namespace: str
    selectors: tuple[Selector, ...]
    bookmarks: bool
    lines: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    transport: asyncio.Transport | None = None
    """The connection that carries it."""

    def deliver(self, change: Change) -> None:
        """Queue a change if it concerns the watch.

        To a watch with a selector, what leaves the selection is deleted and what enters it is
        added.
        """
        metadata = change.object["metadata"]
        if change.resource != self.resource or self.namespace not in (
            "",
            metadata.get("namespace"),
        ):
            return
        is_in = change.type != "DELETED" and self.selects(change.object)
        was_in = change.previous is not None and self.selects(change.previous)
        if is_in:
            self.send("MODIFIED" if was_in else "ADDED", change.object)
        elif was_in:
            # As the API server does: the state that the watch knew, with the version of the change.
            last = change.object if change.type == "DELETED" else change.previous or change.object
            version = {"resourceVersion": metadata["resourceVersion"]}
            self.send("DELETED", last | {"metadata": last["metadata"] | version})

    def selects(self, candidate: Object) -> bool:
        return all(selector(candidate) for selector in self.selectors)

    def send(self, kind: str, sent: Object) -> None:
        self.lines.put_nowait(json.dumps({"type": kind, "object": sent}).encode() + b"\n")

    def bookmark(self, revision: int, annotations: dict[str, str] | None = None) -> None:
        """Say how far the watch has come, if it asked to be told."""
        if self.bookmarks:
            metadata: Object = {"resourceVersion": str(revision)} | (
                {"annotations": annotations} if annotations else {}
            )
            head: Object = {"kind": self.resource.kind, "apiVersion": self.resource.api_version}
            self.send("BOOKMARK", head | {"metadata": metadata})

    def fail(self, error: ApiError) -> None:
        """End with an ERROR event."""
        self.send("ERROR", error.status())
        self.close()

    def cut(self) -> None:
        """Break the connection: the client sees no end of the stream."""
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """End normally, after what is queued."""
        self.lines.put_nowait(None)
