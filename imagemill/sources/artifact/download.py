"""Downloads over HTTP that do not make a worker read what only it can reach.

A request could name a worker's own ports, the metadata service of its cloud, or a server that
redirects there. So all addresses of a host have to be public, or in a network that the operator
allows, and the connection is made to one of the addresses that were looked at: a name that means
another address a moment later (DNS rebinding) gains nothing.
"""

import base64
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    SSLError,
    TimeoutError,
)

from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.ports import Progress
from imagemill.retry_after import retry_after_seconds
from imagemill.sources.artifact.url import ArtifactUrl, Server, redirected, server_of
from imagemill.sources.host_credentials import file_name, token_line
from imagemill.sources.options import SourceOptions

CHUNK = 1 << 18
"""Bytes that are read at a time, at most."""

_TIMEOUT = Timeout(connect=10.0, read=30.0)
"""Seconds of silence before a server counts as unreachable."""

_REDIRECTS = 5
_HEADERS: Mapping[str, str] = {
    "User-Agent": "imagemill",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
}

_TOKEN = re.compile(r"[\x21-\x7e]+")
_NAT64 = ip_network("64:ff9b::/96")
_SPECIAL = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # of protocols; Oracle's clouds have metadata there
            "168.63.129.16/32",  # what Azure tells its machines; public by its number
            "64:ff9b:1::/48",  # local translation to IPv4, RFC 8215
            "2002::/16",  # 6to4, which may hold any IPv4 address
        ),
    )
)
"""Addresses that Python's registry takes for public, in all of its versions or in some."""

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
"""All addresses of a host, by its name or number, for connections to a port; `OSError` if there are
none.
"""


def system_addresses(host: str, port: int) -> list[str]:
    """The addresses that the worker's system knows."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Download:
    """What one worker may download over HTTP, and how."""

    def __init__(self, options: SourceOptions, resolve: Resolve = system_addresses) -> None:
        self._options = options
        self._networks = [ip_network(network) for network in options.networks]
        self._resolve = resolve

    def write(
        self, artifact: ArtifactUrl, write: Callable[[bytes], object], progress: Progress
    ) -> None:
        """Hand the artifact's bytes to `write`, as they come.

        At most five redirects are followed, none with credentials to another server.
        `PermissionDenied` for what the worker may not read, `UserError` for what is not there,
        `TransientError` for what breaks off.
        """
        with self._opened(artifact, progress) as response, _translated(artifact.host):
            while chunk := response.read1(CHUNK, decode_content=False):
                write(chunk)

    @contextmanager
    def _opened(self, artifact: ArtifactUrl, progress: Progress) -> Iterator[BaseHTTPResponse]:
        """The answer with the artifact in it, after all redirects."""
        url, origin = artifact.location, server_of(artifact.location)
        authorization = self._authorization(origin)
        for _ in range(_REDIRECTS + 1):
            progress.check()
            server = _server(artifact, url)
            headers = authorization if server == origin else {}
            response = self._ask(server, url, headers)
            location = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not location:
                with closing(response):
                    _check(response, artifact, server, origin, bool(headers))
                    yield response
                return
            response.close()
            url = _target(artifact, server, url, location)
        raise UserError(
            f"{artifact.location} redirects more than {_REDIRECTS} times", "name what it leads to"
        )

    def _authorization(self, server: Server) -> Mapping[str, str]:
        """The header with the operator's credentials, which go over TLS only: `USER:TOKEN` as
        Basic, else Bearer.
        """
        line = token_line(server.address, self._options) if server.scheme == "https" else ""
        if not line:
            return {}
        if ":" in line:
            return {"Authorization": f"Basic {base64.b64encode(line.encode()).decode()}"}
        if not _TOKEN.fullmatch(line):
            raise OperatorError(
                f"The worker's token for {server.address} has characters that no token can have",
                f"mend the file {file_name(server.address)} in IMAGEMILL_SOURCE_CREDENTIALS",
            )
        return {"Authorization": f"Bearer {line}"}

    def _ask(self, server: Server, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """The head of the server's answer, from the first of its addresses that takes the
        connection.
        """
        self._check_scheme(server)
        parts = urlsplit(url)
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        addresses = self._addresses(server)
        with _translated(server.address):
            for number, address in enumerate(addresses, start=1):
                try:
                    return _request(
                        server, address, target, {**_HEADERS, "Host": server.address, **headers}
                    )
                except (NewConnectionError, ConnectTimeoutError):
                    if number == len(addresses):
                        raise
        raise AssertionError("a name without addresses is an error")

    def _check_scheme(self, server: Server) -> None:
        if (
            server.scheme == "http"
            and not {server.host, server.address} & self._options.insecure_hosts
        ):
            raise PermissionDenied(
                f"The worker does not read from {server.address} by http://, which anybody on the way can change",
                f"use https://, or have the operator add {server.address} to IMAGEMILL_SOURCE_INSECURE_HOSTS",
            )

    def _addresses(self, server: Server) -> list[Address]:
        """The server's addresses, all of which may be connected to."""
        try:
            found = self._resolve(server.host.strip("[]"), server.port)
        except (OSError, UnicodeError) as error:
            raise ServiceUnreachable(
                f"The host {server.host} is not known to the worker: {getattr(error, 'strerror', None) or error}",
                "check its spelling, and the worker's name servers",
            ) from None
        addresses = [ip_address(address) for address in found]
        for address in addresses:
            if not self._is_allowed(address):
                raise PermissionDenied(
                    f"The worker may not read sources from {server.address}: its address {address} is not public",
                    "if that is meant, have the operator add its network to IMAGEMILL_SOURCE_NETWORKS",
                )
        return addresses

    def _is_allowed(self, address: Address) -> bool:
        meant = _without_wrapping(address)
        if any(meant in network or address in network for network in self._networks):
            return True
        return (
            meant.is_global
            and not meant.is_multicast
            and not any(meant in network for network in _SPECIAL)
        )


def _without_wrapping(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to, where it is made of one (RFC 4291, section
    2.5.5; RFC 6052).
    """
    if not isinstance(address, IPv6Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def _request(
    server: Server, address: Address, target: str, headers: Mapping[str, str]
) -> BaseHTTPResponse:
    """Ask the server at this very address; its certificate has to be that of its name."""
    host = str(address)
    if server.scheme == "http":
        pool = HTTPConnectionPool(host, server.port, timeout=_TIMEOUT)
    else:
        context = ssl.create_default_context()
        name = server.host.strip("[]")  # what the certificate is compared with
        pool = HTTPSConnectionPool(
            host, server.port, timeout=_TIMEOUT, ssl_context=context, server_hostname=name
        )
    return pool.urlopen(
        "GET",
        target,
        headers=headers,
        redirect=False,
        retries=False,
        assert_same_host=False,
        preload_content=False,
    )


def _server(artifact: ArtifactUrl, url: str) -> Server:
    """The server of a URL that the artifact has led to."""
    try:
        return server_of(url)
    except UserError as error:
        raise UserError(
            f"{artifact.location} leads to what cannot be read: {error.message}", error.hint
        ) from None


def _target(artifact: ArtifactUrl, server: Server, url: str, location: str) -> str:
    try:
        return redirected(url, location)
    except UserError as error:
        raise UserError(
            f"{artifact.location}: {server.address} redirects to what cannot be read: {error.message}",
            "name what it should lead to",
        ) from None


def _check(
    response: BaseHTTPResponse,
    artifact: ArtifactUrl,
    server: Server,
    origin: Server,
    with_credentials: bool,
) -> None:
    """Raise the error for an answer that is not the artifact."""
    status, address, where = response.status, server.address, artifact.location
    if status == 200:
        return
    wait = retry_after_seconds(response.headers.get("Retry-After"))
    if status in (401, 403):
        whom = (
            "refuses the worker's credentials for"
            if with_credentials
            else "lets not everybody read"
        )
        raise PermissionDenied(
            f"{address} {whom} {where}: it answers {status}", _admission(server, origin)
        )
    if status in (404, 410):
        raise UserError(
            f"There is no artifact at {where}, or not everybody may see it: {address} answers {status}",
            f"check the spelling; if it is private, {_admission(server, origin)}",
        )
    if status == 429:
        raise TransientError(
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
    return f"have the operator put a token that may read it into the file {name} in IMAGEMILL_SOURCE_CREDENTIALS"


@contextmanager
def _translated(address: str) -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        raise _no_answer(
            address, error
        ) from None  # urllib3's own words hold URLs, which may hold signatures


def _no_answer(address: str, error: HTTPError) -> ImagemillError:
    cause = error.args[0] if error.args else None
    if isinstance(error, SSLError) and isinstance(cause, ssl.SSLCertVerificationError):
        return OperatorError(
            f"The worker does not trust the certificate of {address}: {cause.verify_message}",
            "add the authority that signed it to the trusted certificates of the worker's system (SSL_CERT_FILE)",
        )
    if isinstance(error, SSLError):
        return ServiceUnreachable(
            f"There is no TLS connection to {address}: {cause}", "check that it speaks https"
        )
    if isinstance(error, NewConnectionError):
        return ServiceUnreachable(
            f"{address} cannot be reached", "check that it is up, and the network to it"
        )
    if isinstance(error, TimeoutError):
        return ServiceUnreachable(f"{address} does not answer in time", "check that it is healthy")
    return ServiceUnreachable(
        f"{address} broke off its answer", "check that it is healthy, and what is between"
    )
