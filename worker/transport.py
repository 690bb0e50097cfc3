"""Kombu's Redis transport, with a hand-over that loses nothing.

Kombu takes a message off its list (BRPOP) and then notes that it has it: one that is killed in
between takes the message with it. Here one script does both. While there is nothing to take, the
connection waits on the list from which a message is most likely to come: with BLMOVE onto the same
end of the same list, which leaves the message where it is. What cannot be a message at all goes to
the dead letters. See docs/adr/0023-messages-are-handed-over-by-a-script.md.
"""

import time
import uuid
from collections import OrderedDict
from logging import getLogger
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis, virtual
from kombu.utils.encoding import bytes_to_str
from redis.connection import DefaultParser
from redis.exceptions import MasterDownError, OutOfMemoryError, ReadOnlyError

from imagemill.messages import MOST_BYTES
from imagemill.names import BEGIN, LIGHT, STEPS, tenant_queue
from tasks.settings import put_aside
from worker import guard

log = getLogger(__name__)

_TAKE = """
for key = 3, #KEYS do
    local text = redis.call('RPOP', KEYS[key])
    if text then
        if ARGV[key] ~= '' then
            redis.call('HSET', KEYS[1], ARGV[1], '[' .. text .. ', "", "' .. ARGV[key] .. '"]')
            redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
        end
        return {key, text}
    end
end
return false
"""

_ENTRIES = tenant_queue(LIGHT, "")
"""How the queues begin through which tenants' requests come."""

_TAKEN = "taken-"
"""How the tags begin under which messages are noted by the script."""

_ONE_QUEUE_SECONDS = 1
_OTHERS_SECONDS = 0.05
"""How long the connection waits on a list; where there are other lists, these are not seen then."""

_CANNOT_WRITE = (ReadOnlyError, OutOfMemoryError, MasterDownError)
"""What a Redis says that is full, or in the middle of a failover: it passes, as its absence does."""

_CANNOT_WRITE_EITHER = ("MISCONF", "NOREPLICAS", "UNBLOCKED")
"""How one begins to say so whose disk is full or broken, which has lost its replicas, or became one
while somebody waited: redis-py has no classes for these.
"""


class QoS(redis.QoS):
    """What this worker has taken and not yet acknowledged."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message, unless the script that took it has done so."""
        if delivery_tag.startswith(_TAKEN):
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge; with a connection that is lost, the redelivery does it: the message that
        comes again gives way.
        """
        if self._is_cut_off:
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Reject; with a connection that is lost, the redelivery does it."""
        if self._is_cut_off:
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().reject(delivery_tag, requeue)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back that was not acknowledged, as it is. What a worker died with before it
        saw that it is none goes to the dead letters: kombu's own would end whoever comes upon it.
        """
        qos: Any = self

        def put_back(pipe: Any) -> None:
            noted = pipe.hget(qos.unacked_key, tag)
            pipe.multi()
            qos._remove_from_indices(tag, pipe)
            if noted:
                message = guard.noted(bytes_to_str(noted))
                qos.channel._do_restore_message(*message, pipe, leftmost)

        with qos.channel.conn_or_acquire(client) as redis:
            try:
                redis.transaction(put_back, qos.unacked_key)
            except guard.Refused as refused:
                noted = bytes_to_str(redis.hget(qos.unacked_key, tag) or b"")
                text, _, queue = noted[1:].rpartition(', "", "')
                put_aside(queue.removesuffix('"]'), str(refused), {"text": text[:MOST_BYTES]})
                qos._remove_from_indices(tag).execute()

    def restore_unacked(self, client: Any = None) -> None:
        """Put back what was not acknowledged; with a connection that is lost, the redelivery does
        it. Kombu's own would end the worker (docs/upstream/kombu-restore-unacked.md).
        """
        if self._is_cut_off:
            self._delivered = OrderedDict()
        else:
            super().restore_unacked(client)

    @property
    def is_busy(self) -> bool:
        """Whether something was taken that is not acknowledged yet."""
        return len(self._delivered or ()) > len(self._dirty or ())

    @property
    def _is_cut_off(self) -> bool:
        return getattr(self.channel.connection, "client", None) is None


class Channel(redis.Channel):
    """Takes messages by a script. `_in_poll`, `handlers` and the poller are Kombu's own."""

    QoS = QoS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._unnoted: set[str] = set()
        self._waits = False
        self._asked: list[str] = []
        self._tag = ""
        self._turns: dict[str, float] = {}
        super().__init__(*args, **kwargs)

    def basic_consume(self, queue: str, no_ack: bool = False, *args: Any, **kwargs: Any) -> Any:
        """Consume from the queue; what need not be acknowledged is not noted when it is taken."""
        (self._unnoted.add if no_ack else self._unnoted.discard)(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        qos: Any = self.qos
        qos.restore_by_tag(message.delivery_tag, leftmost=leftmost)

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = sorted(self.active_queues, key=self._rank)
        if not queues:
            return
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        command = self._waiting(queues) if self._waits else self._taking(queues)
        self.client.connection.send_command(*command)

    def _rank(self, queue: str) -> tuple[int, float]:
        """Return the rank: steps of builds that have begun go first, those that wait to begin last;
        of the same kind, whose turn was longest ago.
        """
        kind = {STEPS: 0, LIGHT: 2}.get(queue)
        if kind is None:
            kind = 3 if queue.startswith(BEGIN) else 2 if queue.startswith(_ENTRIES) else 1
        return kind, self._turns.get(queue, 0)

    def _taking(self, queues: list[str]) -> list[Any]:
        self._tag = f"{_TAKEN}{uuid.uuid4()}"
        lists = [(queue, step) for step in self.priority_steps for queue in queues]
        self._asked = [queue for queue, _ in lists]
        keys = [self.unacked_key, self.unacked_index_key]
        keys += [
            self._q_for_pri(queue, step)  # type: ignore[attr-defined]
            for queue, step in lists
        ]
        noted = ["" if queue in self._unnoted else queue for queue in self._asked]
        named = [f"{self.global_keyprefix}{key}" for key in keys]
        return ["EVAL", _TAKE, len(named), *named, self._tag, time.time(), *noted]

    def _waiting(self, queues: list[str]) -> list[Any]:
        # A step that runs here is followed by another; who runs none waits for a build to begin.
        qos: Any = self.qos
        here = queues[0] if qos.is_busy else queues[-1]
        seconds = _ONE_QUEUE_SECONDS if len(queues) == 1 else _OTHERS_SECONDS
        key = f"{self.global_keyprefix}{here}"
        return ["BLMOVE", key, key, "RIGHT", "RIGHT", seconds]

    def _brpop_read(self, **options: Any) -> bool:
        waited = self._waits
        try:
            answer = self._answer("BLMOVE" if waited else "EVAL", options)
            self._waits = not waited and not answer
            if waited or not answer:
                raise Empty
            key, text = answer
            self._take(self._asked[key - 3], bytes_to_str(text))
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()  # type: ignore[attr-defined]

    def _answer(self, command: str, options: dict[str, Any]) -> Any:
        try:
            return self.client.parse_response(self.client.connection, command, **options)
        except self.connection_errors:  # type: ignore[attr-defined]
            self._waits = False
            self.client.connection.disconnect()
            raise

    def _take(self, queue: str, text: str) -> None:
        try:
            payload = guard.envelope(text)
        except guard.Refused as refused:
            put_aside(queue, str(refused), {"text": text[:MOST_BYTES]})
            qos: Any = self.qos
            qos._remove_from_indices(self._tag).execute()
            return
        properties = payload["properties"]
        properties["delivery_tag"] = self._tag
        # Where it was taken from, not where its sender says.
        properties["delivery_info"] |= {"exchange": "", "routing_key": queue}
        self._turns[queue] = time.monotonic()
        self.connection._deliver(payload, queue)


class Transport(redis.Transport):
    """Redis, with the channel above."""

    Channel = Channel
    connection_errors = (*redis.Transport.connection_errors, *_CANNOT_WRITE)


def install() -> None:
    """Have this process reach every Redis by this transport, and know one that cannot write."""
    # One mapping, which all parsers of redis-py share.
    DefaultParser.EXCEPTION_CLASSES.update(dict.fromkeys(_CANNOT_WRITE_EITHER, ReadOnlyError))
    for alias in ("redis", "rediss"):
        TRANSPORT_ALIASES[alias] = f"{__name__}:Transport"
