"""Downloads over HTTP that do not make a worker read what only it can reach: all addresses of a
host have to be public, or in a network that the operator allows (`imagemill.addresses`).
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from imagemill import http
from imagemill.addresses import Resolve, system_addresses
from imagemill.errors import (
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    UserError,
)
from imagemill.place import machine
from imagemill.ports import Progress
from imagemill.sources.artifact.url import ArtifactUrl, Server, server_of
from imagemill.sources.host_credentials import file_name, token_line
from imagemill.sources.options import SourceOptions
from imagemill.sources.reach import reach
from imagemill.time_limits import time_limit

CHUNK = 1 << 18
"""Bytes that are read at a time, at most."""

_HEADERS: Mapping[str, str] = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "close",  # so that a name is looked up anew after a redirect
}
_TOKEN = re.compile(r"[\x21-\x7e]+")


class Download:
    """What one worker may download over HTTP, and how."""

    def __init__(self, options: SourceOptions, resolve: Resolve = system_addresses) -> None:
        self._options = options
        self._reach = reach(options, resolve=resolve)

    def write(
        self, artifact: ArtifactUrl, write: Callable[[bytes], object], progress: Progress
    ) -> None:
        """Hand the artifact's bytes to `write`, as they come.

        At most five redirects are followed, none with credentials to another server.
        `PermissionDenied` for what the worker may not read, `UserError` for what is not there,
        `TransientError` for what breaks off.
        """
        server = server_of(artifact.location)
        self._check_scheme(server)
        headers = {**_HEADERS, **self._authorization(server)}
        allowed = self._reach
        if self._options.attended:  # whoever names it can read it anyway
            allowed = replace(allowed, hosts=frozenset({f"{server.host}:{server.port}"}))
        progress.check()
        with (
            time_limit(progress.remaining()),
            http.opened("GET", artifact.location, headers, reach=allowed) as reply,
        ):
            _check(reply, artifact, server, "Authorization" in headers)
            for chunk in reply.chunks(CHUNK):
                write(chunk)

    def _authorization(self, server: Server) -> Mapping[str, str]:
        """Return the header with the operator's credentials, which go over TLS only: `USER:TOKEN`
        as Basic, else Bearer.
        """
        line = token_line(server.address, self._options) if server.scheme == "https" else ""
        if not line:
            return {}
        if ":" in line:
            return {"Authorization": f"Basic {base64.b64encode(line.encode()).decode()}"}
        if not _TOKEN.fullmatch(line):
            raise OperatorError(
                f"{machine().capitalize()}'s token for {server.address} has characters that no token can have",
                f"mend the file {file_name(server.address)} in IMAGEMILL_SOURCE_CREDENTIALS",
            )
        return {"Authorization": f"Bearer {line}"}

    def _check_scheme(self, server: Server) -> None:
        if server.scheme == "http" and not {server.host, server.address} & self._reach.plain:
            raise PermissionDenied(
                f"{machine().capitalize()} does not read from {server.address} by http://, which anybody on the"
                " way can change",
                "use https://, or have the operator add"
                f" {server.address} to {self._reach.plain_setting}",
            )


def _check(
    reply: http.Reply, artifact: ArtifactUrl, origin: Server, with_credentials: bool
) -> None:
    """Raise the error for an answer that is not the artifact."""
    status, server, where = reply.status, server_of(reply.url), artifact.location
    address = server.address
    if status == 200:
        return
    wait = reply.retry_after
    if status in (401, 403):
        whom = (
            f"refuses {machine()}'s credentials for"
            if with_credentials and server == origin
            else "lets not everybody read"
        )
        raise PermissionDenied(
            f"{address} {whom} {where}: it answers {status}", _admission(server, origin)
        )
    if status in (404, 410):
        raise UserError(
            f"There is no artifact at {where}, or not everybody may see it: {address} answers"
            f" {status}",
            f"check the spelling; if it is private, {_admission(server, origin)}",
        )
    if status == 429:
        raise ServiceUnreachable(
            f"{address} has had too many requests for {where}", "it limits requests", wait
        )
    if status == 408 or status >= 500:
        raise ServiceUnreachable(
            f"{address} answers {status} for {where}", "see whether it is healthy", wait
        )
    raise UserError(
        f"{address} answers {status} for {where}, and gives no archive",
        "try the same URL with `curl -L`",
    )


def _admission(server: Server, origin: Server) -> str:
    """How the worker may be let in by a server."""
    if server != origin:
        return f"name what is at {server.address} itself: no credentials go along with a redirect"
    if server.scheme == "http":
        return "use https://: no credentials go over http://"
    name = file_name(server.address)
    return (
        f"have the operator put a token that may read it into the file {name} in"
        " IMAGEMILL_SOURCE_CREDENTIALS"
    )
