"""Shared watches: what happens to the Jobs of all builds of a process, over one connection per kind
of object.

A watch begins with a list and goes on from its `resourceVersion`. It is opened again from where it
was when the server closes it or the connection breaks, and begins anew when the server has
forgotten that place (410 Gone):
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes. Nothing
is asked repeatedly: a build waits until its `Feed` has something new.
"""

import json
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import ReadTimeoutError

from imagemill.builders.kaniko.api import (
    EVENTS,
    JOBS,
    PODS,
    Cluster,
    Expired,
    Object,
    Resource,
    shared,
)
from imagemill.builders.kaniko.job import LABELS
from imagemill.errors import ImagemillError, PermissionDenied, ServiceUnreachable, TransientError
from imagemill.place import machine

log = logging.getLogger(__name__)

SELECTOR = ",".join(f"{name}={value}" for name, value in LABELS.items())
"""Our Jobs, and their pods."""

PATIENCE = 60.0
"""Seconds for which builds go on while the API server is away."""

STEP = 0.25
"""Seconds after which a build that waits looks whether it is to stop."""

_SECONDS = 300
_SILENCE = 75.0  # a living watch has a bookmark about every minute; one that is silent for longer is opened again
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_MOST_EVENTS = 50


@dataclass(frozen=True)
class Sight:
    """What is known of one Job."""

    job: Object | None
    """None if it is gone, or not seen yet."""
    gone: bool = False
    pods: tuple[Object, ...] = ()
    """In the order in which they were made; the last state of those that are gone."""
    events: tuple[Object, ...] = ()
    """Warnings about the Job and its pods, the latest last."""


class Feed:
    """What the watches tell of the Jobs of one name; threads write to it, and the build reads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pod_prefix = f"{name}-"[:58]  # of generated names, 58 characters are kept
        self._changed = threading.Condition()
        self._news = False
        self._stale = False
        self._jobs: dict[str, Object] = {}
        self._gone: set[str] = set()
        self._pods: dict[str, Object] = {}
        self._events: dict[str, Object] = {}

    def concerns(self, resource: Resource, item: Object) -> bool:
        """Whether an object has to do with a Job of this name."""
        if resource is JOBS:
            return bool(item["metadata"]["name"] == self.name)
        if resource is PODS:
            return owner_of(item, "Job")[0] == self.name
        subject = item.get("involvedObject") or {}
        name, kind = str(subject.get("name")), subject.get("kind")
        return (kind == "Job" and name == self.name) or (
            kind == "Pod" and name[:-5] == self._pod_prefix
        )

    def put(self, resource: Resource, item: Object, *, gone: bool = False) -> None:
        """Take the news of an object."""
        item["metadata"].pop("managedFields", None)
        uid = item["metadata"]["uid"]
        with self._changed:
            if resource is JOBS:
                self._jobs[uid] = _newer(item, self._jobs.get(uid))
                if gone:
                    self._gone.add(uid)
            elif resource is PODS:
                self._pods[uid] = _newer(item, self._pods.get(uid))
            else:
                self._events.pop(uid, None)
                self._events[uid] = item
                while len(self._events) > _MOST_EVENTS:
                    del self._events[next(iter(self._events))]
            self._tell()

    def listed(self, resource: Resource, items: list[Object]) -> None:
        """Take a list of all objects: what is not in it may have gone, or is newer than the
        list.
        """
        present = {item["metadata"]["uid"] for item in items}
        for item in items:
            self.put(resource, item)
        with self._changed:
            known = {JOBS.plural: self._jobs, PODS.plural: self._pods}.get(resource.plural, {})
            if known.keys() - present - self._gone:
                self._stale = True
                self._tell()

    def wake(self) -> None:
        """Make the build look at its feed."""
        with self._changed:
            self._tell()

    def wait(self, seconds: float = STEP) -> bool:
        """Wait for news, for some time at most; whether there is any."""
        with self._changed:
            if not self._news:
                self._changed.wait(seconds)
            news, self._news = self._news, False
            return news

    def see(self, uid: str) -> Sight:
        """Return what is known of the Job with this uid."""
        with self._changed:
            pods = [pod for pod in self._pods.values() if owner_of(pod, "Job")[1] == uid]
            known = {uid, *(pod["metadata"]["uid"] for pod in pods)}
            events = [
                event
                for event in self._events.values()
                if event["involvedObject"].get("uid") in known
            ]
            job = None if uid in self._gone else self._jobs.get(uid)
        pods.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
        return Sight(job, uid in self._gone, tuple(pods), tuple(events))

    def refresh(self, cluster: Cluster, uid: str) -> None:
        """Ask the cluster for the Job and its pods, as they are now."""
        job = cluster.get(JOBS, self.name)
        if job is not None and job["metadata"]["uid"] == uid:
            self.put(JOBS, job)
        else:
            with self._changed:
                self._gone.add(uid)
        for pod in cluster.list(
            PODS, labels=f"{SELECTOR},batch.kubernetes.io/controller-uid={uid}"
        )["items"]:
            self.put(PODS, pod)

    def recall(self, cluster: Cluster, uid: str) -> None:
        """Ask for the warnings about a Job that are older than this feed; they are good to know,
        and not needed.
        """
        with suppress(ImagemillError):
            for event in cluster.list(EVENTS, fields=f"type=Warning,involvedObject.uid={uid}")[
                "items"
            ]:
                self.put(EVENTS, event)

    def take_stale(self) -> bool:
        """Whether what is known has to be refreshed; then it is the caller's to do."""
        with self._changed:
            stale, self._stale = self._stale, False
            return stale

    def _tell(self) -> None:
        self._news = True
        self._changed.notify_all()


def _newer(item: Object, known: Object | None) -> Object:
    """Return the newer one of two states: a watch may be behind what has been asked for.

    Versions of one object are numbers that grow, officially so since Kubernetes 1.35:
    https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions.
    """
    versions = [str(each["metadata"].get("resourceVersion", "")) for each in (item, known or item)]
    if (
        known is not None
        and all(map(str.isdecimal, versions))
        and int(versions[0]) < int(versions[1])
    ):
        return known
    return item


def owner_of(item: Object, kind: str) -> tuple[str, str]:
    """Name and uid of an object's owner of that kind; empty if it has none."""
    for owner in item["metadata"].get("ownerReferences") or ():
        if owner["kind"] == kind:
            return owner["name"], owner["uid"]
    return "", ""


class Watches:
    """The watches on one namespace: open for as long as there are builds."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._feeds: list[Feed] = []
        self._watches: list[_Watch] = []

    @contextmanager
    def feed(self, name: str, check: Callable[[], None]) -> Iterator[Feed]:
        """Start the feed of the Jobs of one name, live from the start of the block.

        While it waits for that, it calls `check`, which may raise.
        """
        feed = Feed(name)
        with self._lock:
            self._feeds.append(feed)
            watches = self._watches = self._living()
        try:
            for watch in watches:
                while not watch.live.wait(STEP):
                    check()
            self.check()
            yield feed
        finally:
            self._leave(feed)

    def check(self) -> None:
        """Raise the error of a watch that cannot go on, or that has not for longer than
        `PATIENCE`.
        """
        for watch in list(self._watches):
            watch.check()

    def _living(self) -> list["_Watch"]:
        """Return a watch of each kind, new in the place of one that nobody foresaw to end."""
        if not self._watches:
            return [self._watch(*kind) for kind in _KINDS]
        known = zip(_KINDS, self._watches, strict=True)
        return [self._watch(*kind) if watch.has_died else watch for kind, watch in known]

    def _leave(self, feed: Feed) -> None:
        with self._lock:
            self._feeds.remove(feed)
            stopped = [] if self._feeds else self._watches
            if stopped:
                self._watches = []
        for watch in stopped:
            watch.stop()

    def _watch(self, resource: Resource, labels: str, fields: str) -> "_Watch":
        watch = _Watch(self._cluster, resource, labels, fields, self._interested)
        watch.start()
        return watch

    def _interested(self) -> list[Feed]:
        with self._lock:
            return list(self._feeds)


# Events have no labels of ours. What we want to know are warnings, of which a namespace has few.
_KINDS = ((JOBS, SELECTOR, ""), (PODS, SELECTOR, ""), (EVENTS, "", "type=Warning"))


@shared
def watches_of(cluster: Cluster) -> Watches:
    """Return the watches on a cluster's namespace, which all builds of the process share."""
    return Watches(cluster)


class _Watch(threading.Thread):
    """The watch on one kind of object."""

    def __init__(
        self,
        cluster: Cluster,
        resource: Resource,
        labels: str,
        fields: str,
        feeds: Callable[[], list[Feed]],
    ) -> None:
        super().__init__(name=f"watch-{resource.plural}", daemon=True)
        self.live = threading.Event()
        """Set once the first list is in, or could not be had, or the watch has ended."""
        self._cluster, self._resource, self._feeds = cluster, resource, feeds
        self._selectors = {"labels": labels, "fields": fields}
        self._version = ""
        self._stopped = threading.Event()
        self._stream: BaseHTTPResponse | None = None
        self._lock = threading.Lock()
        self._failure: ImagemillError | None = None
        self._failing_since = 0.0

    def check(self) -> None:
        """Raise the error that keeps the watch from going on. Events are not needed, only good to
        know.
        """
        failure = self._failure
        if self._resource is EVENTS:
            return
        if failure is not None:
            lasting = not isinstance(failure, TransientError)
            if lasting or time.monotonic() - self._failing_since > PATIENCE:
                raise failure
        elif self.has_died:
            raise ServiceUnreachable(
                f"The watch on {self._resource.plural} has ended", f"see the log of {machine()}"
            )

    @property
    def has_died(self) -> bool:
        """Whether the watch has ended by an error that nobody foresaw, which Python prints."""
        return not (self.is_alive() or self._stopped.is_set())

    def stop(self) -> None:
        """End the watch, whatever it waits for."""
        self._stopped.set()
        with self._lock:
            if self._stream is not None:
                shut(self._stream)

    def run(self) -> None:
        try:
            self._keep_on()
        finally:
            self.live.set()  # whoever waits for it learns by `check` how it ended

    def _keep_on(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopped.is_set():
            try:
                self._go_on()
                pause = _FIRST_PAUSE
            except Expired:
                log.info("The watch on %s has to begin anew", self._resource.plural)
                self._version = ""
            except ImagemillError as error:
                self._fail(error)
                pause = min(pause * 2, _LONGEST_PAUSE)
            self._stopped.wait(random.uniform(pause / 2, pause))

    def _go_on(self) -> None:
        """List if it is the beginning; then take what changes, until the stream ends."""
        if not self._version:
            self._list()
        with self._cluster.watch(
            self._resource, self._version, _SECONDS, _SILENCE, **self._selectors
        ) as stream:
            self._failure = None
            with self._lock:
                self._stream = stream
            try:
                if not self._stopped.is_set():
                    self._read(stream)
            finally:
                with self._lock:
                    self._stream = None

    def _list(self) -> None:
        listed = self._cluster.list(self._resource, **self._selectors)
        for feed in self._feeds():
            feed.listed(
                self._resource,
                [item for item in listed["items"] if feed.concerns(self._resource, item)],
            )
        self._version = listed["metadata"]["resourceVersion"]
        self._failure = None
        self.live.set()

    def _read(self, stream: BaseHTTPResponse) -> None:
        try:
            for line in lines(stream):
                if self._stopped.is_set():
                    return  # what was cut off by the end need not be a whole line
                self._take(_event(line))
        except ReadTimeoutError:
            log.debug("The watch on %s was silent", self._resource.plural)

    def _take(self, event: dict[str, Any]) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            if item.get("code") == 410:
                raise Expired
            raise ServiceUnreachable(
                f"The watch on {self._resource.plural} broke off: {item.get('message')}",
                "see the API server's log",
            )
        if kind != "BOOKMARK":
            for feed in self._feeds():
                if feed.concerns(self._resource, item):
                    feed.put(self._resource, item, gone=kind == "DELETED")
        self._version = item["metadata"]["resourceVersion"]

    def _fail(self, error: ImagemillError) -> None:
        if self._stopped.is_set():
            return
        log.warning("The watch on %s does not go on: %s", self._resource.plural, error)
        if self._resource is EVENTS and isinstance(error, PermissionDenied):
            self._stopped.set()  # they are good to know, and not needed
        if self._failure is None:
            self._failing_since = time.monotonic()
        self._failure = error
        self.live.set()
        for feed in self._feeds():
            feed.wake()


def _event(line: bytes) -> dict[str, Any]:
    """Return the event that a line of a watch is; what stands between may send anything."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and isinstance(event.get("object"), dict) and "type" in event:
        return event
    raise ServiceUnreachable(
        "A watch got what no Kubernetes API server sends",
        "see what stands between, such as a proxy",
    )


def lines(
    stream: BaseHTTPResponse, *, partial: bool = False, longest: int | None = None
) -> Iterator[bytes]:
    """Yield the lines of a stream, as soon as they come; what comes after the last line end only if
    `partial`.

    Of a line of more than `longest` bytes only the first `longest` ones are sure to be right: a
    progress bar can be one line for hours, and is not to be kept in memory.
    """
    rest = b""
    for chunk in stream.stream():
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        rest = rest[:longest]
    if partial and rest:
        yield rest


def shut(stream: BaseHTTPResponse) -> None:
    """Wake the thread that reads the stream, with its end.

    The connection below TLS is ended, and TLS is left as it is: `SSLSocket.shutdown` would take the
    TLS layer away from under the thread that reads, which then gets records that nobody decrypts.
    """
    connection = stream.connection
    below = None if connection is None else getattr(connection, "sock", None)
    try:
        if isinstance(below, socket.socket):
            socket.socket.shutdown(below, socket.SHUT_RDWR)
        else:
            stream.shutdown()
    except (OSError, RuntimeError, ValueError):  # it is through with it already
        return
