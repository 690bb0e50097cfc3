"""The record of each build in Redis: which step is due, who has it, and what is known so far.

The record is the truth, and a message is only a hint that something is due. A step is claimed here,
in one atomic script, by whoever got its message; the claim is a lease that is renewed for as long
as the step runs. What the step learned and the step that follows are written in one go, before the
next message is sent. So a message that was doubled, delayed or made up finds that it is not its
turn, and one that was lost is sent again by the reaper (`overdue`). See
docs/adr/0018-the-record-is-the-truth.md.

    turn      number of the step that is due, counted from 1; `ended` once all is done
    step      its name, `queue` where its message goes, `sent` when it was due to be there
    message   the build, with all that is known of it
    holder    who runs the step, `until` when its lease ends, `attempt` the number of its claim
    deaths    holders of this turn that died; `tries`, how often it was tried before
    report    how the build ended; written once
    asked     source and destination of the request
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from logging import getLogger
from typing import Any, cast

from redis import Redis

from imagemill.messages import Build, State
from imagemill.names import BUILD_KEEP_SECONDS
from imagemill.state.journal import BEGUN, LOST, MAX_EVENTS, Entered, Journal
from imagemill.state.seal import Seal

log = getLogger(__name__)

RECORD = "imagemill-record-v1"
"""What a record's seal is for, with the turn and the step that it was written for."""

RENEWALS = 4
"""How often a lease is renewed within its time."""

# The server's clock, since those of the workers differ.
_NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""

_BEGIN = f"""{_NOW}
local record, index, begun = unpack(KEYS)
local id, step, queue, message, canvas, asked, grace, keep = unpack(ARGV)
if redis.call('EXISTS', record) == 0 then
    redis.call('HSET', record, 'turn', 1, 'step', step, 'queue', queue, 'message', message,
        'canvas', canvas, 'sent', now, 'asked', asked)
    redis.call('EXPIRE', record, keep)
    redis.call('ZADD', index, now + grace, id)
    redis.call('ZADD', begun, now, id)
    redis.call('ZREMRANGEBYSCORE', begun, '-inf', now - keep)
    redis.call('EXPIRE', begun, keep)
    return 1
end
return redis.call('HGET', record, 'turn') == '1' and redis.call('HEXISTS', record, 'attempt') == 0
"""

_CLAIM = f"""{_NOW}
local record, index, served, events, states, cancel, result = unpack(KEYS)
local id, turn, step, holder, lease, state, entry, shown, rest, keep, most = unpack(ARGV)
local due = redis.call('HMGET', record, 'turn', 'step', 'holder', 'until', 'sent', 'queue',
    'message', 'tries', 'source_hash')
if due[1] ~= turn or due[2] ~= step then return false end
if due[3] and tonumber(due[4]) > now then return false end
if due[3] then redis.call('HINCRBY', record, 'deaths', 1) end
local attempt = redis.call('HINCRBY', record, 'attempt', 1)
redis.call('HSET', record, 'holder', holder, 'until', now + lease)
redis.call('EXPIRE', record, keep)
redis.call('ZADD', index, now + lease, id)
-- A step that was woken before its time was sent now, at the latest.
local sent = math.min(tonumber(due[5]), now)
if sent > tonumber(redis.call('HGET', served, due[6]) or 0) then
    redis.call('HSET', served, due[6], sent)
    redis.call('EXPIRE', served, keep)
end
redis.call('XADD', events, 'MAXLEN', '~', most, '*', 'state', state)
redis.call('RPUSH', states, entry)
redis.call('EXPIRE', events, keep)
redis.call('EXPIRE', states, keep)
local hash = due[9] and ', "source_hash": "' .. due[9] .. '"' or ''
redis.call('SET', result, shown .. hash .. rest, 'EX', keep)
return {{attempt, tonumber(redis.call('HGET', record, 'deaths') or 0), tonumber(due[8] or 0), due[7],
    redis.call('LRANGE', states, 0, -1), redis.call('EXISTS', cancel)}}
"""

_ADVANCE = f"""{_NOW}
local record, index = unpack(KEYS)
local id, attempt, step, queue, message, hash, tries, delay, grace, keep = unpack(ARGV)
local held = redis.call('HMGET', record, 'attempt', 'holder')
if held[1] ~= attempt or not held[2] then return false end
redis.call('HDEL', record, 'holder', 'until', 'deaths')
redis.call('HSET', record, 'step', step, 'queue', queue, 'message', message, 'tries', tries,
    'sent', now + delay)
if hash ~= '' then redis.call('HSET', record, 'source_hash', hash) end
redis.call('EXPIRE', record, keep)
redis.call('ZADD', index, now + delay + grace, id)
return redis.call('HINCRBY', record, 'turn', 1)
"""

_RELEASE = f"""{_NOW}
local record, index = unpack(KEYS)
local id, turn, holder, died, grace = unpack(ARGV)
local held = redis.call('HMGET', record, 'turn', 'holder')
if held[1] ~= turn or held[2] ~= holder then return false end
redis.call('HDEL', record, 'holder', 'until')
redis.call('HINCRBY', record, 'deaths', died)
redis.call('HSET', record, 'sent', now)
redis.call('ZADD', index, now + grace, id)
return true
"""

_RENEW = f"""{_NOW}
local record, index = unpack(KEYS)
local id, attempt, lease = unpack(ARGV)
local held = redis.call('HMGET', record, 'attempt', 'holder')
if held[1] ~= attempt or not held[2] then return false end
redis.call('HSET', record, 'until', now + lease)
redis.call('ZADD', index, now + lease, id)
return true
"""

_FINISH = """
local record, index = unpack(KEYS)
local id = unpack(ARGV)
redis.call('HSET', record, 'turn', 'ended')
redis.call('HDEL', record, 'message', 'canvas', 'holder', 'until', 'queue', 'step', 'tries', 'sent')
redis.call('ZREM', index, id)
"""

_OVERDUE = f"""{_NOW}
local index, served = unpack(KEYS)
local before, after, grace, most = unpack(ARGV)
local found = {{}}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, most)) do
    local due = redis.call('HMGET', before .. id .. after, 'turn', 'step', 'queue', 'sent',
        'holder', 'until')
    if not due[1] or due[1] == 'ended' then
        redis.call('ZREM', index, id)
    elseif due[5] and tonumber(due[6]) > now then
        redis.call('ZADD', index, due[6], id)
    else
        redis.call('ZADD', index, now + grace, id)
        local passed = tonumber(redis.call('HGET', served, due[3]) or 0) >= tonumber(due[4])
        found[#found + 1] = {{id, due[1], due[2], due[3], (due[5] or passed) and 1 or 0}}
    end
end
return found
"""


@dataclass(frozen=True)
class Due:
    """A step that is due: what its message says. `lost` says that its message cannot be in the
    queue any more.
    """

    build: str
    turn: int
    step: str
    queue: str
    lost: bool = False


@dataclass
class Claim:
    """What whoever runs a step has of the record.

    `deaths` says how many died in this step before, `tries` how often it was tried. `lost` becomes
    true once somebody else has the step.
    """

    build: Build
    turn: int
    attempt: int
    deaths: int
    tries: int
    entered: Entered
    lost: bool = False


class Records:
    """The records of all builds beside their journals.

    `grace` is for how many seconds a step may be due before its message is looked for, and how long
    the lease of a step holds without being renewed.
    """

    def __init__(self, journal: Journal, grace: float, seal: Seal) -> None:
        self._journal = journal
        self.seal = seal
        self._grace = grace
        self._index = journal.shared_key("due")
        self._served = journal.shared_key("served")
        redis: Redis = journal.redis
        self._begin, self._claim = redis.register_script(_BEGIN), redis.register_script(_CLAIM)
        self._advance, self._renew = redis.register_script(_ADVANCE), redis.register_script(_RENEW)
        self._release, self._finish = (
            redis.register_script(_RELEASE),
            redis.register_script(_FINISH),
        )
        self._overdue = redis.register_script(_OVERDUE)

    def begin(self, build: Build, step: str, queue: str, canvas: Mapping[str, Any]) -> Due | None:
        """Write the record of a new build; return what is to be sent. None if the build has begun
        already. `canvas` is kept for `Records.canvas`.
        """
        asked = {"source": build.request.source, "destination": build.request.destination}
        values = [
            build.id,
            step,
            queue,
            self._text(build, 1, step),
            json.dumps(canvas),
            json.dumps(asked),
        ]
        keys = [*self._keys(build.id), self._journal.shared_key(BEGUN)]
        begun = self._begin(keys, [*values, self._grace, BUILD_KEEP_SECONDS])
        return Due(build.id, 1, step, queue) if begun else None

    def claim(
        self, build: str, turn: int, step: str, holder: str, state: State, **shown: Any
    ) -> Claim | None:
        """Take the step, and note that the build came to `state`, as `Journal.enter` does.

        None if it is not this step's turn, or somebody runs it; `BrokenSealError` if the record is
        not what a worker wrote.
        """
        at = time.time()
        before, after = self._journal.result_around(build, state, at, shown)
        keys = [*self._keys(build), self._served, *self._journal.entry_keys(build)]
        values: list[Any] = [
            build,
            turn,
            step,
            holder,
            self._grace,
            state.value,
            f"{state.value} {at}",
        ]
        taken = self._claim(keys, [*values, before, after, BUILD_KEEP_SECONDS, MAX_EVENTS])
        if not taken:
            return None
        attempt, deaths, tries, message, times, cancelled = cast("list[Any]", taken)
        sealed = cast("bytes", message).decode(errors="replace")
        known = Build.load(json.loads(self.seal.open(_purpose(turn, step), build, sealed)))
        return Claim(known, turn, attempt, deaths, tries, Entered(times, bool(cancelled)))

    def advance(
        self, claim: Claim, build: Build, step: str, queue: str, *, tries: int = 0, delay: float = 0
    ) -> Due | None:
        """Write what is known now and which step is due, after `delay` seconds; return what is to
        be sent. None if the step was somebody else's by now.
        """
        values: list[Any] = [
            build.id,
            claim.attempt,
            step,
            queue,
            self._text(build, claim.turn + 1, step),
            build.source_hash or "",
        ]
        turn = self._advance(
            self._keys(build.id), [*values, tries, delay, self._grace, BUILD_KEEP_SECONDS]
        )
        return Due(build.id, int(turn), step, queue) if turn else None

    def release(self, build: str, turn: int, holder: str, *, died: bool) -> bool:
        """Free the step that `holder` runs for the next one; `died` counts it as a death. False if
        it is not the holder's (any more).
        """
        values: list[Any] = [build, turn, holder, int(died), self._grace]
        return bool(self._release(self._keys(build), values))

    def renew(self, claim: Claim) -> bool:
        """Renew the lease; False if the step is somebody else's by now."""
        return bool(
            self._renew(self._keys(claim.build.id), [claim.build.id, claim.attempt, self._grace])
        )

    def finish(self, build: str) -> None:
        """Note that nothing is left to do: the report is where it belongs, and nothing lies about.

        What stays of the record, for `names.BUILD_KEEP_SECONDS`, tells a late message to give way.
        """
        self._finish(self._keys(build), [build])

    def open(self, build: str) -> bool:
        """Return whether a step of the build is due, or runs."""
        return self._journal.redis.zscore(self._index, build) is not None

    def over(self, build: str) -> bool:
        """Return whether the build has ended, or nothing is known of it any more."""
        turn = self._journal.redis.hget(self._keys(build)[0], "turn")
        return turn in (None, b"ended")

    def ended(self, build: str) -> bool:
        """Return whether the build is known to have ended, with all that follows its report."""
        return self._journal.redis.hget(self._keys(build)[0], "turn") == b"ended"

    def canvas(self, build: str) -> dict[str, Any]:
        """Return what the caller of the build asked Celery to do when it has ended."""
        text = self._journal.redis.hget(self._keys(build)[0], "canvas")
        return dict(json.loads(cast("bytes", text))) if text else {}

    def overdue(self, most: int = 1000) -> list[Due]:
        """Return steps that have been due for too long, or whose holder let its lease end.

        Each is given to one caller; it comes again only when it is still due after the grace.
        """
        before, after = self._journal.build_key("\0", "record").split("\0")
        found = self._overdue([self._index, self._served], [before, after, self._grace, most])
        return [
            Due(build.decode(), int(turn), step.decode(), queue.decode(), bool(lost))
            for build, turn, step, queue, lost in cast("list[Any]", found)
        ]

    def _text(self, build: Build, turn: int, step: str) -> str:
        return self.seal.close(_purpose(turn, step), build.id, json.dumps(build.dump()))

    def _keys(self, build: str) -> list[str | bytes]:
        return [self._journal.build_key(build, "record"), self._index]


def _purpose(turn: int, step: str) -> str:
    return f"{RECORD} {turn} {step}"


class Leases:
    """Renews the leases of all steps that run in this process, from one thread."""

    def __init__(self, records: Records, grace: float) -> None:
        self._records = records
        self._interval = grace / RENEWALS
        self._claims: list[Claim] = []
        self._changed = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def renewed(self, claim: Claim) -> Iterator[None]:
        """Keep the claim while the block runs; `claim.lost` says that it could not be kept."""
        with self._changed:
            self._claims.append(claim)
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="leases", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._claims.remove(claim)

    def _renew(self) -> None:
        while True:
            time.sleep(self._interval)
            with self._changed:
                claims = list(self._claims)
            for claim in claims:
                try:
                    claim.lost = claim.lost or not self._records.renew(claim)
                except LOST as error:
                    log.warning(
                        "The lease of build %s could not be renewed: %s", claim.build.id, error
                    )
