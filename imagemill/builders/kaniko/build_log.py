"""The log of a build: that of its pods, handed on line by line, as people read it."""

import re
from collections import deque
from collections.abc import Callable

from imagemill.builders.kaniko import failures
from imagemill.builders.kaniko.api import Cluster
from imagemill.builders.kaniko.context_access import without_signatures
from imagemill.builders.kaniko.executor_log import Readable
from imagemill.builders.kaniko.logs import PodLog, followers_of
from imagemill.builders.kaniko.watch import Sight
from imagemill.errors import OperatorError, TransientError
from imagemill.messages import State
from imagemill.ports import Progress

_PUSHING = re.compile(r"\bPushing image to ")
_TAIL = 200


class ExecutorLog:
    """What the pods of one Job say. `wake` is called when there is more of it."""

    def __init__(self, cluster: Cluster, progress: Progress, wake: Callable[[], None]) -> None:
        self.tail: deque[str] = deque(maxlen=_TAIL)
        """The last lines, as the executor wrote them."""
        self._cluster, self._progress, self._wake = cluster, progress, wake
        self._readable = Readable()
        self._logs: dict[str, PodLog] = {}
        self._pushing = False

    def close(self) -> None:
        """Follow no more."""
        for log in self._logs.values():
            log.close()

    def follow(self, sight: Sight) -> None:
        """Hand on the lines that have come, and have the logs of new pods followed."""
        for pod in sight.pods:
            state, uid = failures.executor_state(pod), pod["metadata"]["uid"]
            if uid not in self._logs and not {"running", "terminated"}.isdisjoint(state):
                container = failures.executor_of(pod)["name"]
                self._logs[uid] = PodLog(
                    self._cluster, pod["metadata"]["name"], container, self._wake
                )
                if "running" in state:
                    followers_of(self._cluster).add(self._logs[uid])
        for log in self._logs.values():
            for line in log.take():
                self._say(line)
            if log.failure is not None:
                self._progress.log(f"The log cannot be followed: {log.failure}")
                log.failure = None

    def finish(self, sight: Sight) -> None:
        """Hand on the rest of the logs; a log that is lost is no reason to lose the build."""
        self.follow(sight)
        for log in self._logs.values():
            try:
                for line in log.rest():
                    self._say(line)
            except (OperatorError, TransientError) as error:
                self._progress.log(f"The end of the log could not be read: {error}")

    def _say(self, line: str) -> None:
        line = without_signatures(line)
        self.tail.append(line)
        if (readable := self._readable.line(line)) is not None:
            self._progress.log(readable)
        if not self._pushing and _PUSHING.search(line):
            self._pushing = True
            self._progress.enter(State.PUSHING)
