"""The logs of build pods: followed live over a bounded number of connections, each line once.

A log stream is a connection to one pod, so hundreds of builds share a few: a follower reads one log
for a turn, and then the next one that waits. Where a log is read on, Kubernetes can begin at a
second only; lines of that second that have been read already are known and left out. What has not
been read when the container ends is read then, whole.
"""

import queue
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from urllib3 import BaseHTTPResponse

from imagemill.builders.kaniko.api import Absent, Cluster, shared
from imagemill.builders.kaniko.watch import lines, shut
from imagemill.errors import ImagemillError, TransientError

FOLLOWERS = 32
"""Logs that are followed at once, and so connections for them."""

TURN = 2.0
"""Seconds for which a log is followed while others wait."""

_SILENCE = 15.0  # a stream without lines is given up after so many seconds: somebody may wait, or it may be dead
_AGAIN = 0.5
_IDLE = 5.0
_MOST_LINES = 5000
_OVERLAP = timedelta(seconds=1)  # two streams of a container may be stamped a little out of order
_LONGEST = 16 << 10
_STAMP = 64  # what stands before a line, at most

_LINE = re.compile(
    rb"(?P<second>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(?P<zone>Z|[+-]\d\d:\d\d) (?P<text>.*)",
    re.DOTALL,
)


class LogPosition:
    """How far a log has been read, by its lines' times."""

    def __init__(self) -> None:
        self._second: datetime | None = None
        self._recent: Counter[bytes] = Counter()
        self._older: Counter[bytes] = Counter()
        self._known: Counter[bytes] = Counter()

    @property
    def since(self) -> str:
        """From when on the log is to be read, for `sinceTime`; empty: from its beginning."""
        return (self._second - _OVERLAP).strftime("%Y-%m-%dT%H:%M:%SZ") if self._second else ""

    def resume(self) -> None:
        """Read the log again, from `since` on."""
        self._known = self._recent + self._older

    def text(self, line: bytes) -> str | None:
        """Return what stands in a line, after its time; None if it has been read before."""
        found = _LINE.match(line)
        if found is None:
            return line.decode(errors="replace")
        key = line[:_LONGEST]
        if self._known[key] > 0:
            self._known[key] -= 1
            return None
        self._note(
            datetime.fromisoformat((found["second"] + found["zone"]).decode()).astimezone(UTC), key
        )
        return found["text"][:_LONGEST].decode(errors="replace").rstrip("\r")

    def _note(self, second: datetime, key: bytes) -> None:
        if self._second is None or second > self._second:
            near = self._second is not None and second - self._second <= _OVERLAP
            self._older = self._recent if near else Counter()
            self._recent, self._second = Counter(), second
        self._recent[key] += 1


class PodLog:
    """The log of one container: what has been read of it and not been taken yet."""

    def __init__(
        self, cluster: Cluster, pod: str, container: str, wake: Callable[[], None]
    ) -> None:
        self._cluster, self._pod, self._container, self._wake = cluster, pod, container, wake
        self._place = LogPosition()
        self._lines: deque[str] = deque()
        self._stream: BaseHTTPResponse | None = None
        self._changed = threading.Condition()
        self.closed = threading.Event()
        self.failure: ImagemillError | None = None

    def take(self) -> list[str]:
        """Return the lines that have come since this was last asked."""
        with self._changed:
            taken = list(self._lines)
            self._lines.clear()
            self._changed.notify_all()
            return taken

    def rest(self) -> Iterator[str]:
        """All lines that have not been taken, of a container that has ended; the log is not
        followed any more.
        """
        self.close()
        yield from self.take()
        self._place.resume()
        try:
            with self._cluster.log(self._pod, self._container, self._place.since) as stream:
                for line in lines(stream, partial=True, longest=_LONGEST + _STAMP):
                    if (text := self._place.text(line)) is not None:
                        yield text
        except Absent:
            return

    def close(self) -> None:
        """Follow no more: whoever does is freed at once."""
        with self._changed:
            self.closed.set()
            self._changed.notify_all()
            if self._stream is not None:
                shut(self._stream)

    def follow(self, is_over: Callable[[], bool], silence: float) -> None:
        """Read what comes, until the stream ends or is silent for so many seconds, or, at a line,
        `is_over`.
        """
        self._place.resume()
        with self._cluster.follow(self._pod, self._container, self._place.since, silence) as stream:
            self._open(stream)
            try:
                for line in lines(stream, longest=_LONGEST + _STAMP):
                    if not self._add(line) or is_over():
                        return
            finally:
                self._open(None)

    def _open(self, stream: BaseHTTPResponse | None) -> None:
        with self._changed:
            self._stream = stream
            if stream is not None and self.closed.is_set():
                shut(stream)

    def _add(self, line: bytes) -> bool:
        """Keep a line for the build, once there is room; False if the log is closed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._lines) < _MOST_LINES or self.closed.is_set())
            if self.closed.is_set():
                return False
            text = self._place.text(line)
            if text is not None:
                self._lines.append(text)
        if text is not None:
            self._wake()
        return True


class Followers:
    """The threads that follow logs: as many as there are logs, up to a limit, and none when there
    are none.
    """

    def __init__(self, limit: int = FOLLOWERS, turn: float = TURN) -> None:
        self._limit, self._turn = limit, turn
        self._waiting: queue.SimpleQueue[PodLog] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running = 0
        self._idle = 0

    def add(self, log: PodLog) -> None:
        """Follow a log from its first line on, until it is closed."""
        self._waiting.put(log)
        with self._lock:
            if self._idle < self._waiting.qsize() and self._running < self._limit:
                self._running += 1
                threading.Thread(target=self._run, name="follow-logs", daemon=True).start()

    def _run(self) -> None:
        while (log := self._next()) is not None:
            if self._follow(log):
                self._waiting.put(log)

    def _next(self) -> PodLog | None:
        """Return the log that has waited longest; None if there was none for a while, and the
        thread is to end.
        """
        with self._lock:
            self._idle += 1
        try:
            return self._waiting.get(timeout=_IDLE)
        except queue.Empty:
            with self._lock:
                if not self._waiting.empty():
                    return self._waiting.get_nowait()
                self._running -= 1
            return None
        finally:
            with self._lock:
                self._idle -= 1

    def _follow(self, log: PodLog) -> bool:
        """Follow a log for a turn, or until others wait; whether it is to be followed on."""
        if log.closed.is_set():
            return False
        ends = time.monotonic() + self._turn
        silence = _SILENCE if self._waiting.empty() else self._turn
        try:
            log.follow(lambda: time.monotonic() > ends and not self._waiting.empty(), silence)
        except (Absent, TransientError):
            log.closed.wait(_AGAIN)
        except ImagemillError as error:
            log.failure = error
            return False
        return not log.closed.is_set()


@shared
def followers_of(cluster: Cluster) -> Followers:
    """Return the followers that all builds of the process share."""
    return Followers()
