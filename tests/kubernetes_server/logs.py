"""The containers' logs, and what one gets to read of them.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kubernetes_server import clock, status
from kubernetes_server.status import Object


@dataclass
class Log:
    """The lines of one container, with their times; `ended` when there will be no more."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, lines: list[str]) -> None:
        self.lines += [(clock.exact_now(), line) for line in lines]
        self._wake()

    def end(self) -> None:
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass(frozen=True)
class Wanted:
    """What of a log is asked for: the query of `pods/log`."""

    follow: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since: datetime | None = None
    limit_bytes: int | None = None

    @classmethod
    def of(cls, query: dict[str, str]) -> "Wanted":
        """The query's meaning; 400 for what is no number or no time."""
        try:
            since = clock.parse(query["sinceTime"]) if "sinceTime" in query else None
            if "sinceSeconds" in query:
                since = datetime.now(UTC) - timedelta(seconds=int(query["sinceSeconds"]))
            tail = int(query["tailLines"]) if "tailLines" in query else None
            limit = int(query["limitBytes"]) if "limitBytes" in query else None
        except ValueError as error:
            raise status.bad_request(f"invalid log options: {error}") from error
        return cls(_true(query.get("follow")), _true(query.get("timestamps")), tail, since, limit)

    async def read(self, log: Log) -> AsyncIterator[bytes]:
        """The bytes of the log; with `follow` until the container has ended."""
        position, left = self._start(log), self.limit_bytes
        while True:
            changed = log.changed
            piece = b"".join(self._render(*line) for line in log.lines[position:])[:left]
            position = len(log.lines)
            if piece:
                yield piece
            left = None if left is None else left - len(piece)
            if log.ended or not self.follow or left == 0:
                return
            await changed.wait()

    def _start(self, log: Log) -> int:
        tail = 0 if self.tail_lines is None else max(len(log.lines) - self.tail_lines, 0)
        since = self.since
        if since is None:
            return tail
        recent = (index for index, (time, _) in enumerate(log.lines) if clock.parse(time) >= since)
        return max(tail, next(recent, len(log.lines)))

    def _render(self, time: str, line: str) -> bytes:
        return (f"{time} {line}\n" if self.timestamps else f"{line}\n").encode()


def container_of(pod: Object, asked: str) -> str:
    """The container that is meant; 400 if none is, or there is no such one."""
    name = pod["metadata"]["name"]
    names = [container["name"] for container in pod["spec"]["containers"]]
    inits = [container["name"] for container in pod["spec"].get("initContainers", [])]
    if asked:
        if asked not in names + inits:
            raise status.bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    if len(names) == 1:
        return str(names[0])
    choice = f"choose one of: [{' '.join(names)}]" + (
        f" or one of the init containers: [{' '.join(inits)}]" if inits else ""
    )
    raise status.bad_request(f"a container name must be specified for pod {name}, {choice}")


def check_started(pod: Object, container: str) -> None:
    """400, in the kubelet's words, while the container has nothing to tell yet."""
    pod_status = pod.get("status", {})
    states = pod_status.get("containerStatuses", []) + pod_status.get("initContainerStatuses", [])
    found: Object = next((state for state in states if state["name"] == container), {})
    state = found.get("state", {})
    if "running" in state or "terminated" in state or "terminated" in found.get("lastState", {}):
        return
    waiting = state.get("waiting", {}).get("reason", "ContainerCreating")
    why = {
        "ErrImagePull": "image can't be pulled",
        "ImagePullBackOff": "trying and failing to pull image",
    }.get(waiting, waiting)
    message = (
        f'container "{container}" in pod "{pod["metadata"]["name"]}" is waiting to start: {why}'
    )
    raise status.bad_request(message)


def _true(text: str | None) -> bool:
    return text in ("", "1", "t", "T", "true", "TRUE", "True")
