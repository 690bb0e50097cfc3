"""What a test can do to the API server: deny, break connections, expire versions, count watches."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from kubernetes_server import status
from kubernetes_server.access import Fault, Rule, Webhook
from kubernetes_server.base import Running
from kubernetes_server.resources import QUOTAS, Target
from kubernetes_server.status import ApiError

_REASONS = {
    401: ("Unauthorized", "Unauthorized"),
    403: ("Forbidden", "forbidden"),
    409: ("Conflict", "Operation cannot be fulfilled"),
    410: ("Expired", "The resourceVersion for the provided watch is too old."),
    429: ("TooManyRequests", "Too many requests, please try again later."),
    500: ("InternalError", "Internal error occurred: etcdserver: request timed out"),
    502: ("", "Bad Gateway"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: ("Timeout", "Timeout: request did not complete within the allotted timeout"),
}


class Control(Running):
    """The knobs of the API server."""

    @property
    def connections(self) -> dict[str, int]:
        """How many streams are open: watches by the plural of their resource, and followed logs as
        `pods/log`.
        """
        return self._call(self._connections)

    def _connections(self) -> dict[str, int]:
        counted = Counter(watch.resource.plural for watch in self.api.watches)
        followers = self.frontend.followers
        return dict(counted) | ({"pods/log": followers} if followers else {})

    def deny(self, verb: str, resource: str, namespace: str = "") -> None:
        """RBAC no longer grants the verb (`*`: any) on the resource (`jobs`, `pods/log`); 403 from
        now on.
        """
        self._call(lambda: self.access.denied.add(Rule(verb, resource, namespace)))

    def allow(self, verb: str = "*", resource: str = "*") -> None:
        """Take back what was denied with exactly these words; without any, everything."""
        everything = (verb, resource) == ("*", "*")

        def allow() -> None:
            kept = {
                rule
                for rule in self.access.denied
                if (rule.verb, rule.resource) != (verb, resource)
            }
            self.access.denied = set() if everything else kept

        self._call(allow)

    def deny_admission(
        self, webhook: str, message: str, resource: str = "jobs", code: int = 403
    ) -> None:
        """An admission webhook of this name denies every new object of the resource."""
        self._call(lambda: self.access.webhooks.append(Webhook(webhook, resource, message, code)))

    def set_quota(self, name: str, hard: dict[str, int], namespace: str = "") -> None:
        """A ResourceQuota: how many there may be of `pods`, `count/jobs.batch` and the like."""
        metadata = {"name": name, "namespace": namespace or self.namespace}
        spec = {"hard": {key: str(count) for key, count in hard.items()}}
        self._call(lambda: self._insert(QUOTAS, {"metadata": metadata, "spec": spec}))

    def drop_field(self, name: str) -> None:
        """Drop this field of new pods and Jobs' pods in silence, as an API server does without the
        feature that it belongs to.
        """
        self._call(lambda: self.api.dropped.add(name))

    def fail_next(
        self,
        status: int,
        times: int = 1,
        verb: str = "*",
        resource: str = "*",
        message: str = "",
        retry_after: int | None = None,
    ) -> None:
        """Answer the next requests that fit with this HTTP status (`pods/log` is a resource of its
        own).
        """
        reason, words = _REASONS[status]
        headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
        error = ApiError(status, reason, message or words, headers=headers)
        self._call(lambda: self.access.faults.append(Fault(_fits(verb, resource), error, times)))

    def lose_answers(self, times: int = 1, verb: str = "*", resource: str = "*") -> None:
        """Carry out the next requests that fit, but break the connection before they are
        answered.
        """
        self._call(
            lambda: self.access.lost_answers.append(Fault(_fits(verb, resource), None, times))
        )

    def close_watches(self) -> None:
        """End all open watches normally, as API servers do from time to time."""

        def close() -> None:
            for watch in self.api.watches:
                watch.close()

        self._call(close)

    def cut_watches(self) -> None:
        """Break the connections of all open watches, as a network or a crash does."""

        def cut() -> None:
            for watch in self.api.watches:
                watch.cut()

        self._call(cut)

    def garble_watches(self, line: bytes) -> None:
        """Send a line to all watches that no API server sends, as a proxy between may."""

        def garble() -> None:
            for watch in self.api.watches:
                watch.lines.put_nowait(line + b"\n")

        self._call(garble)

    def restart(self, refusing: float = 0.5) -> None:
        """Start again, as at an upgrade of the control plane: all streams break, and for so many
        seconds every question is answered by 403, until the Roles are read.
        """

        def start() -> None:
            for watch in self.api.watches:
                watch.cut()
            self.frontend.cut_logs()
            self.access.starting = True
            asyncio.get_running_loop().call_later(
                refusing, vars(self.access).update, {"starting": False}
            )

        self._call(start)

    def delay(self, seconds: float) -> None:
        """Let each request from now on wait so long for its answer."""
        self._call(lambda: vars(self.frontend).update(delay=seconds))

    def hang(self, seconds: float) -> None:
        """Do nothing for so long, as a server that has been stopped: connections are taken up by the
        kernel, nobody is answered, and no stream goes on. Returns when that is over.
        """
        self._call(lambda: time.sleep(seconds))

    def expire_watches(self, *, as_status: bool = False) -> None:
        """Forget all changes so far: open watches end with an ERROR event of 410, and older
        versions are gone.

        A watch that starts from a version which is gone gets an ERROR event too, or HTTP status 410
        with `as_status`: API servers do either.
        """

        def expire() -> None:
            self.api.gone_as_status = as_status
            self.store.compact()
            for watch in self.api.watches:
                watch.fail(status.expired("The resourceVersion for the provided watch is too old."))

        self._call(expire)

    def send_bookmarks(self) -> None:
        """Send a BOOKMARK to all watches that allow it, as API servers do about once a minute."""

        def send() -> None:
            for watch in self.api.watches:
                watch.bookmark(self.store.revision)

        self._call(send)

    def keep_terminating(self, kept: bool = True) -> None:
        """Whether deleted pods stay `Terminating`, as on a node that is lost, or end at once (the
        default).
        """

        def keep() -> None:
            self.api.garbage.keeps_terminating = kept
            self.api.garbage.collect()

        self._call(keep)


def _fits(verb: str, resource: str) -> Callable[[str, Target], bool]:
    def fits(asked: str, target: Target) -> bool:
        named = (
            f"{target.resource.plural}/{target.subresource}"
            if target.subresource
            else target.resource.plural
        )
        return verb in ("*", asked) and resource in ("*", named)

    return fits
