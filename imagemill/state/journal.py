"""What is known of a build while it runs, beside its Celery result: a Redis stream of events per
build.

States, log lines and the report are entries of one stream, so that whoever follows a build (the
live view, `logs -f`, `wait`) reads one thing, in order, from any position; a stream, unlike
pub/sub, loses nothing when a reader is away for a moment. A second key says that somebody wants the
build cancelled.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MasterDownError, OutOfMemoryError, ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from imagemill.messages import BuildReport, BuildStatus, BuildSummary, State, StepTime
from imagemill.names import BUILD_KEEP_SECONDS
from imagemill.text import one_line

MAX_EVENTS = 20_000
"""About how many events of one build are kept; older ones make room."""

MAX_LINE = 8192
"""Characters of one log line; the rest is cut."""

LOST = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    OutOfMemoryError,
    MasterDownError,
)
"""What redis-py raises when the server is away, or cannot write just now: loading, full, or a
replica in the middle of a failover.
"""


_ENTER = """
local events, states, cancel, result, record = unpack(KEYS)
local state, entry, shown, keep, most = unpack(ARGV)
redis.call('XADD', events, 'MAXLEN', '~', most, '*', 'state', state)
if redis.call('RPUSH', states, entry) == 1 then
    redis.call('EXPIRE', events, keep)
    redis.call('EXPIRE', states, keep)
end
if redis.call('HEXISTS', record, 'report') == 0 then
    redis.call('SET', result, shown, 'EX', keep)
end
return {redis.call('LRANGE', states, 0, -1), redis.call('EXISTS', cancel)}
"""

_SHOW = """
local result, record = unpack(KEYS)
local shown, keep = unpack(ARGV)
if redis.call('HEXISTS', record, 'report') == 0 then
    redis.call('SET', result, shown, 'EX', keep)
end
"""

_END = """
local record, events, states = unpack(KEYS)
local report, keep = unpack(ARGV)
if redis.call('HSETNX', record, 'report', report) == 0 then
    return redis.call('HGET', record, 'report')
end
redis.call('XADD', events, '*', 'report', report)
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, keep) end
return report
"""


CANCELLED = "cancelled"
"""Shared key of the builds that somebody wants to stop, until the reaper has seen that."""

BEGUN = "begun"
"""Shared key of all builds by the time when they began, for as long as they are kept."""


@dataclass(frozen=True)
class Event:
    """One entry of a build's journal; exactly one of `state`, `line`, `amount` and `report` is
    set.
    """

    position: str
    at: float
    state: State | None = None
    line: str | None = None
    amount: str | None = None
    """How far the step has come: the last one counts. Empty where that is over."""
    report: BuildReport | None = None


def connect(url: str, *, patience: int = 6) -> Redis:
    """Return a Redis client that rides out short absences: `patience` tries, with jittered back-off
    up to 1 s each.
    """
    return Redis.from_url(
        _for_redis_py(url),
        socket_connect_timeout=5,
        socket_timeout=15,
        health_check_interval=30,
        retry=Retry(ExponentialWithJitterBackoff(cap=1, base=0.05), patience),
        retry_on_error=list(LOST),
    )


@dataclass(frozen=True)
class Entered:
    """What `Journal.enter` answers; `cancelled` says whether the build is to be cancelled."""

    _entries: list[bytes]
    cancelled: bool

    @property
    def steps(self) -> tuple[StepTime, ...]:
        """The times of all states of the build so far; the last one has not ended."""
        return _times(self._entries)

    @property
    def again(self) -> bool:
        """Whether the build was in this state before: a retry, or a wait."""
        states = [entry.split()[0] for entry in self._entries[-2:]]
        return len(states) == 2 and states[0] == states[1]


class Journal:
    """The journals of all builds in one Redis; `prefix` keeps several installations in one database
    apart.

    `result_key` gives the key of a task's result in the same Redis (Celery's
    `backend.get_key_for_task`).
    """

    def __init__(self, redis: Redis, prefix: str, result_key: Callable[[str], bytes]) -> None:
        self.redis = redis
        self._prefix = f"{prefix}imagemill:"
        self._result_key = result_key
        self._enter = redis.register_script(_ENTER)
        self._show = redis.register_script(_SHOW)
        self._end = redis.register_script(_END)

    def ask(self, build: str, at: float) -> None:
        """Note that a build is asked for, by commands that a client's Redis user may give."""
        events, states, _, result = self.entry_keys(build)
        state = State.QUEUED
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.xadd(events, {"state": state.value})
        pipeline.rpush(states, f"{state.value} {at}")
        for key in (events, states):
            pipeline.expire(key, BUILD_KEEP_SECONDS)
        pipeline.set(result, _result(build, state, at, {}), ex=BUILD_KEEP_SECONDS)
        pipeline.execute()

    def enter(self, build: str, state: State, at: float, **more: Any) -> Entered:
        """Note that the build came to `state` at the time `at`: in its journal and, with `more`, in
        its result.

        One command, since each step does it: what Celery's own `update_state` would do takes three.
        The result of a build whose report stands is left alone: a worker that has slept may enter
        it late.
        """
        keys = [*self.entry_keys(build), self.build_key(build, "record")]
        noted: list[Any] = [state.value, f"{state.value} {at}", _result(build, state, at, more)]
        times, cancelled = cast(
            "list[Any]", self._enter(keys, [*noted, BUILD_KEEP_SECONDS, MAX_EVENTS])
        )
        return Entered(times, bool(cancelled))

    def show(self, build: str, state: State, at: float, **more: Any) -> None:
        """Show `state`, with `more`, in the result of a build that has no report, and nowhere else."""
        shown = _result(build, state, at, more)
        keys: list[bytes | str] = [self._result_key(build), self.build_key(build, "record")]
        self._show(keys, [shown, BUILD_KEEP_SECONDS])

    def steps(self, build: str) -> tuple[StepTime, ...]:
        """Return the times of all states of the build so far; the last one has not ended. Empty if
        it is not known.
        """
        return _times(
            cast("list[bytes]", self.redis.lrange(self.build_key(build, "states"), 0, -1))
        )

    def log(self, build: str, lines: Sequence[str]) -> None:
        """Add lines to the build's log, in one round trip."""
        pipeline = self.redis.pipeline(transaction=False)
        for line in lines:
            pipeline.xadd(
                self.build_key(build, "events"),
                {"line": one_line(line, MAX_LINE)},
                maxlen=MAX_EVENTS,
                approximate=True,
            )
        pipeline.execute()

    def tell(self, build: str, amount: str) -> None:
        """Say how far the step has come."""
        self.redis.xadd(
            self.build_key(build, "events"),
            {"amount": one_line(amount, MAX_LINE)},
            maxlen=MAX_EVENTS,
            approximate=True,
        )

    def end(self, build: str, report: BuildReport) -> BuildReport:
        """Write the report, the last event of a build, unless there is one; return the one that
        stands.
        """
        own = ("record", "events", "states")
        text = report.model_dump_json(exclude_none=True)
        stands = self._end(
            [self.build_key(build, what) for what in own], [text, BUILD_KEEP_SECONDS]
        )
        return BuildReport.load(json.loads(cast("bytes", stands)))

    def events(self, build: str, after: str = "0", wait: float = 0) -> list[Event]:
        """Up to 1000 events after the position `after`, waiting up to `wait` seconds for the first
        of them.
        """
        block = max(1, int(wait * 1000)) if wait else None
        answer = self.redis.xread({self.build_key(build, "events"): after}, count=1000, block=block)
        streams = cast("list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", _pairs(answer))
        return [_event(position, fields) for _, entries in streams for position, fields in entries]

    def last_lines(self, build: str, count: int = 20) -> tuple[str, ...]:
        """Return the last lines of the build's log, oldest first."""
        newest = self._newest(build, 10 * count)
        lines = [event.line for event in newest if event.line is not None]
        return tuple(reversed(lines[:count]))

    def report(self, build: str) -> BuildReport | None:
        """Return the build's report, once it has ended."""
        return next((event.report for event in self._newest(build, 100) if event.report), None)

    def ask_to_cancel(self, build: str) -> None:
        """Leave word for the worker that the build is to stop, and for the reaper, if it waits."""
        waiting = self.shared_key(CANCELLED)
        pipeline = self.redis.pipeline()
        pipeline.set(self.build_key(build, "cancel"), int(time.time()), ex=BUILD_KEEP_SECONDS)
        pipeline.sadd(waiting, build)
        pipeline.expire(waiting, BUILD_KEEP_SECONDS)
        pipeline.execute()

    def is_cancelled(self, build: str) -> bool:
        """Whether somebody wants the build to stop."""
        return bool(self.redis.exists(self.build_key(build, "cancel")))

    def newest(self, since: float) -> Iterator[BuildSummary]:
        """Yield the builds that have begun after `since`, in seconds since 1970, newest first."""
        first, batch = 0, 200
        while True:
            found = cast(
                "list[tuple[bytes, float]]",
                self.redis.zrevrangebyscore(
                    self.shared_key(BEGUN), "+inf", since, first, batch, withscores=True
                ),
            )
            pipeline = self.redis.pipeline(transaction=False)
            for name, _ in found:
                pipeline.hmget(self.build_key(name.decode(), "record"), "asked", "report")
                pipeline.lindex(self.build_key(name.decode(), "states"), -1)
            known = pipeline.execute()
            for (name, at), (asked, report), state in zip(
                found, known[::2], known[1::2], strict=True
            ):
                if asked is not None:  # else its record has been given up since
                    yield _summary(name.decode(), at, asked, report, state)
            if len(found) < batch:
                return
            first += batch

    def build_key(self, build: str, what: str) -> str:
        """Return the key of what is kept of one build."""
        return f"{self._prefix}build:{build}:{what}"

    def shared_key(self, what: str) -> str:
        """Return the key of what is kept of all builds together."""
        return f"{self._prefix}{what}"

    def entry_keys(self, build: str) -> list[bytes | str]:
        """Return the keys that an entry into a state changes: events, states, cancel, result."""
        own = (self.build_key(build, what) for what in ("events", "states", "cancel"))
        return [*own, self._result_key(build)]

    def result_around(
        self, build: str, state: State, at: float, more: dict[str, Any]
    ) -> tuple[str, str]:
        """Return the text of a result that is not final, before and after the place for more."""
        text = _result(build, state, at, more)
        return text[: -len("}}")], "}}"

    def _newest(self, build: str, count: int) -> Iterator[Event]:
        entries = cast(
            "list[tuple[bytes, dict[bytes, bytes]]]",
            self.redis.xrevrange(self.build_key(build, "events"), count=count),
        )
        return (_event(position, fields) for position, fields in entries)


def _summary(
    build: str, at: float, asked: bytes, report: bytes | None, state: bytes | None
) -> BuildSummary:
    """Read what Redis has of a build for a list of builds."""
    ended = BuildReport.load(json.loads(report)) if report else None
    running = State(state.decode().split()[0]) if state else State.QUEUED
    return BuildSummary(
        id=build,
        begun=at,
        state=BuildStatus.ended(ended).state if ended else running,
        **json.loads(asked),
        image=ended and ended.image,
        seconds=ended and ended.seconds,
        error=ended and ended.error and ended.error.message,
    )


def _pairs(answer: Any) -> Any:
    """XREAD's answer is a list of pairs in RESP2 and a mapping in RESP3."""
    if isinstance(answer, dict):
        return [
            (key, [entry for batch in batches for entry in batch])
            for key, batches in answer.items()
        ]
    return answer or []


def _for_redis_py(url: str) -> str:
    """Celery's URL of a unix socket, `redis+socket:///PATH?virtual_host=DB`, as redis-py spells
    it.
    """
    scheme, _, rest = url.partition("://")
    return (
        f"unix://{rest.replace('virtual_host=', 'db=')}"
        if scheme in ("redis+socket", "socket")
        else url
    )


def _result(build: str, state: State, at: float, more: dict[str, Any]) -> str:
    """Return a result that is not final, as Celery writes it: what AsyncResult and Flower show."""
    meta = {"build": build, "since": at, **more}
    return json.dumps(
        {"task_id": build, "status": state.value, "traceback": None, "children": [], "result": meta}
    )


def _times(entries: list[bytes]) -> tuple[StepTime, ...]:
    """Each state ends when the next begins; one that is entered again at once (a retry, a wait)
    goes on.
    """
    steps: list[StepTime] = []
    for name, at in (entry.decode().split() for entry in entries):
        if steps and steps[-1].state == name:
            continue
        if steps:
            steps[-1] = steps[-1].model_copy(update={"ended": float(at)})
        steps.append(StepTime(state=State(name), started=float(at)))
    return tuple(steps)


def _event(position: bytes, fields: dict[bytes, bytes]) -> Event:
    """Read one entry; its position begins with Redis' own clock, in milliseconds."""
    where = position.decode()
    at = int(where.split("-")[0]) / 1000
    if b"state" in fields:
        return Event(where, at, state=State(fields[b"state"].decode()))
    if b"report" in fields:
        return Event(where, at, report=BuildReport.load(json.loads(fields[b"report"])))
    if b"amount" in fields:
        return Event(where, at, amount=fields[b"amount"].decode(errors="replace"))
    return Event(where, at, line=fields[b"line"].decode(errors="replace"))
