"""The one HTTP client: registries, token servers, archives and files of Git LFS are asked by it.

An exchange has one time limit from its first packet to its last, whatever a server does in between;
connections lead only where a `Reach` lets them, at each redirect anew, and go by the proxies of the
environment; credentials do not go along to another server; heads and small answers are bounded.

It is on the path of every build, so connections are kept for as long as the process lives.
"""

import builtins
import http.client
import io
import os
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import ip_address
from socket import timeout as SocketTimeout  # noqa: N812
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from urllib3 import (
    BaseHTTPResponse,
    HTTPConnectionPool,
    HTTPHeaderDict,
    HTTPSConnectionPool,
    PoolManager,
    ProxyManager,
    Timeout,
    make_headers,
)
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    SSLError,
    TimeoutError,
)

from imagemill import authorities
from imagemill.addresses import LOCAL, Address, Reach, networks
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.per_process import per_process
from imagemill.proxies import proxy_for
from imagemill.retry_after import retry_after_seconds
from imagemill.text import one_line
from imagemill.time_limits import end_of_block

CONNECT_SECONDS = 10.0
"""The most that a connection to one address may take."""

SILENCE_SECONDS = 30.0
"""The most that a server may keep silent."""

ANSWER_SECONDS = 60.0
"""The most that a small answer, or the head of a large one, may take in all."""

BODY_LIMIT = 4 << 20
"""Bytes of a small answer. Registries take manifests of 4 MiB, and may refuse larger ones
(specification, "Pushing Manifests")."""

HEADER_LIMIT = 8 << 10
"""Characters of one header of an answer."""

_ADDRESSES = 4  # of one host, that are tried
_REDIRECTS = 5
_PORTS: Mapping[str, int] = MappingProxyType({"https": 443, "http": 80})
_SAFE = "%/?#[]!$&'()*+,;=:@~"
_OWN_HEADERS = frozenset({"authorization", "cookie"})  # for one server alone
_PLAIN_ANSWERS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})
_ANYWHERE = Reach(networks=networks(("0.0.0.0/0", "::/0")))
_REDIRECTING = (301, 302, 303, 307, 308)
USER_AGENT = "imagemill"


def registries(plain: frozenset[str] = frozenset()) -> Reach:
    """Return where registries may be: also in private networks and on this machine, and what they
    lead to where `beyond` says. `plain` are hosts that the operator has named.
    """
    setting = "IMAGEMILL_INSECURE_REGISTRIES"
    return Reach(plain, (), LOCAL, plain, f"add its host to {setting}", setting)


Body = bytes | BinaryIO | None
"""What is sent with a question; a file is sent from its beginning, and its `Content-Length` has to
be among the headers. It may take as long as the block of `time_limit` has.
"""


class Answer(NamedTuple):
    """A server's small answer; `url` is where it came from after redirects, and may hold a
    signature: do not print it.
    """

    status: int
    headers: HTTPHeaderDict
    body: bytes
    url: str
    beyond: Reach = Reach()
    """Where the server may lead to."""

    @property
    def media_type(self) -> str:
        """The content type, without its parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the server wants to be asked again, if it says so."""
        return retry_after_seconds(self.headers.get("Retry-After"))


def request(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: Body = None,
    reach: Reach | None = None,
) -> Answer:
    """Ask, follow redirects, and return the answer, whatever its status.

    Where there is no answer it is a `ServiceUnreachable` or, if waiting does not help, an
    `OperatorError`, or a `UserError` for a host that cannot be one.
    """
    with opened(method, url, headers, body, reach) as reply:
        return reply.answer()


class Reply:
    """A server's answer of which the head has come, and the body has not been read."""

    def __init__(self, response: BaseHTTPResponse, exchange: "_Exchange", beyond: Reach) -> None:
        self.status = response.status
        self.headers = response.headers
        self.url = exchange.url
        """Where it came from after redirects; it may hold a signature: do not print it."""
        self.beyond = beyond
        """Where the server may lead to."""
        self._response, self._exchange = response, exchange

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the server wants to be asked again, if it says so."""
        return retry_after_seconds(self.headers.get("Retry-After"))

    def answer(self) -> Answer:
        """Return the whole answer; `TransientError` if it is not a small one."""
        return Answer(self.status, self.headers, self.content(), self.url, self.beyond)

    def content(self) -> bytes:
        """Return the whole body; `TransientError` if it has more than `BODY_LIMIT` bytes."""
        with _translated(self._exchange):
            content = self._response.read(BODY_LIMIT + 1)
        if len(content) > BODY_LIMIT:
            raise TransientError(
                f"{host_of(self.url)} answers with more than {BODY_LIMIT >> 20} MiB",
                "check that it is what it should be",
            )
        return content

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the body's bytes as they were sent and as they come, at most `size` at a time.

        They may take as long as the block of `time_limit` has.
        """
        self._exchange.end = end_of_block()
        while True:
            with _translated(self._exchange):
                chunk = self._response.read1(size, decode_content=False)
            if not chunk:
                return
            yield chunk


@contextmanager
def opened(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: Body = None,
    reach: Reach | None = None,
) -> Iterator[Reply]:
    """Ask, follow redirects, and give the answer's head; its connection is kept if all has been
    read.

    Errors are those of `request`; `UserError` for a redirect that leads nowhere, `PermissionDenied` for one
    that must not be followed.
    """
    reach, first = reach or registries(), origin(url)
    for _ in range(_REDIRECTS + 1):
        exchange = _Exchange(url, reach)
        with _translated(exchange):
            sent = headers if origin(url) == first else _without_own(headers)
            response = exchange.send(method, sent, body)
        _check_head(response, url)
        location = response.headers.get("Location")
        reply = Reply(
            response, exchange, reach.beyond(exchange.peer, plain=url.startswith("http:"))
        )
        with closing(response):
            if not location or response.status not in _REDIRECTING:
                yield reply
                return
            reply.content()
        target = redirected(url, location)
        reach = leads(method, url, target, reach, reply.beyond)
        url = target
    raise UserError(
        f"{host_of(url)} redirects more than {_REDIRECTS} times", "name what it leads to"
    )


def timed(manager: PoolManager) -> PoolManager:
    """Return the connections of a library that has ways of its own to trust, to log in and to go by
    proxies, for use in blocks of `in_time` alone. Those by a SOCKS proxy are made in yet another way,
    and stay as they are.
    """
    if type(manager) not in (PoolManager, ProxyManager):
        return manager
    manager.pool_classes_by_scheme = {
        "http": type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": _Plain}),
        "https": type("TlsPool", (HTTPSConnectionPool,), {"ConnectionCls": _Tls}),
    }
    return manager


def in_time(url: str, *, is_large: bool = False) -> AbstractContextManager[None]:
    """Have all that is asked of a `timed` manager in the block, tried again or not, end within
    `ANSWER_SECONDS`; a large answer may take as long as the block of `time_limit` has. Errors are
    urllib3's.
    """
    exchange = _Exchange(url, _ANYWHERE)
    if is_large:
        exchange.end = end_of_block()
    return exchange.running()


def speaks_http(host: str) -> bool:
    """Return whether the server at `host` answers without TLS. One that wants TLS says 400, or
    breaks off.
    """
    exchange = _Exchange(f"http://{host}/v2/", registries())
    try:
        with closing(exchange.send("GET", {}, None)) as response:
            response.read(BODY_LIMIT)
    except ProtocolError:
        return False
    except HTTPError as error:
        raise exchange.failure(error) from None
    return response.status != 400


def is_loopback(host: str) -> bool:
    """Return whether a host, with or without a port, is this machine itself."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def origin(url: str) -> tuple[str, str]:
    """Return scheme, host and port: what makes two URLs the same server's."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def host_of(url: str) -> str:
    """Return host and port of a URL, which is all of it that is fit to be told."""
    return urlsplit(url).netloc.rpartition("@")[2]


def address_of(url: str) -> str:
    """Return `HOST:PORT` of a URL, in lower case, with the port also where it is the scheme's."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    return host if parts.port else f"{host}:{_PORTS[parts.scheme]}"


def is_url(text: str) -> bool:
    """Return whether this is an address that can be asked."""
    try:
        parts = urlsplit(text)
        return parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def redirected(url: str, location: str) -> str:
    """Return the URL that a server's `Location` names, without a fragment, fit to be asked.

    `UserError` if it is none. It may hold a signature: do not print it.
    """
    try:
        # Headers come as Latin-1, whatever they are in.
        text = quote(location.encode("latin-1", "replace"), safe=_SAFE)
        target = urljoin(url, text).partition("#")[0]
    except ValueError:
        target = ""
    if not is_url(target) or "@" in urlsplit(target).netloc:
        raise UserError(
            f"{host_of(url)} redirects to what is no URL, or has a password in it",
            "name what it should lead to",
        )
    return target


def leads(method: str, url: str, target: str, reach: Reach, beyond: Reach) -> Reach:
    """Return where the server of `target` may be, which the one of `url` names: anywhere in `reach`
    if it is the same, else `beyond`. Raise the error where it must not be followed.
    """
    if origin(target) == origin(url):
        return reach
    here, there = host_of(url), host_of(target)
    named = bool({there, urlsplit(target).hostname} & reach.plain)
    both_here = url.startswith("http:") and is_loopback(here) and is_loopback(there)
    if target.startswith("http:") and not (named or both_here):
        raise PermissionDenied(
            f"{here} redirects to {there} without TLS",
            f"let it redirect to https, or have the operator add {there} to {reach.plain_setting}",
        )
    if method == "POST":  # the body is what a token is asked with
        raise OperatorError(
            f"{here} redirects the request for a token to {there}",
            "let it name the other as its realm",
        )
    return beyond


def _without_own(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers that are fit for any server."""
    return {name: value for name, value in headers.items() if name.lower() not in _OWN_HEADERS}


def _check_head(response: BaseHTTPResponse, url: str) -> None:
    for name, value in response.headers.iteritems():
        if len(value) > HEADER_LIMIT:
            response.close()
            raise TransientError(
                f"{host_of(url)} answers with a header {name[:40]!r} of {len(value):,} characters",
                "check that it is what it should be",
            )


class _Exchange:
    """One question to one server, and its answer: what they may take, and how they end."""

    def __init__(self, url: str, reach: Reach) -> None:
        self.url, self.reach = url, reach
        self.begun = time.monotonic()
        self.end = min(self.begun + ANSWER_SECONDS, end_of_block())
        """When it is to be over, by `time.monotonic`."""
        self.peer: Address | None = None
        """The server's address; None by a proxy."""
        self.proxy: str | None = None

    def left(self, most: float) -> float:
        """Return the seconds that are left, but not more than `most`; `TimeoutError` if none
        are.
        """
        left = self.end - time.monotonic()
        if left <= 0:
            raise builtins.TimeoutError("the time for the whole answer is over")
        return min(most, left)

    def send(self, method: str, headers: Mapping[str, str], body: Body) -> BaseHTTPResponse:
        """Send once; once more if a kept connection breaks before there is an answer, as the server
        may close it just then.

        All that is asked here can be asked twice (RFC 9112, section 9.3.1).
        """
        manager = self._manager()
        pool = manager.connection_from_url(self.url)
        made = pool.num_connections
        if not isinstance(body, bytes | None):
            self.end = end_of_block()
        with self.running():
            try:
                return _ask(manager, method, self.url, headers, body)
            except ProtocolError:
                if pool.num_connections > made:  # it was a new connection
                    raise
                return _ask(manager, method, self.url, headers, body)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have what connections of ours do in the block be part of it."""
        token = _exchange.set(self)
        try:
            yield
        finally:
            _exchange.reset(token)

    def failure(self, error: HTTPError) -> ImagemillError:
        """Return what an error of urllib3 means. Its own words are not told: they hold URLs."""
        host = host_of(self.url)
        if isinstance(error, ProxyError) and self.proxy:
            return _no_proxy(host, host_of(self.proxy), error.original_error)
        if isinstance(error, SSLError):
            return _no_tls(host, error, self.reach)
        if isinstance(error, LocationValueError):
            return UserError(f"{host} cannot be a host", "check how it is written")
        if isinstance(error, NameResolutionError):
            return ServiceUnreachable(
                f"The name of {host} cannot be resolved: {_strerror(error)}",
                "check its spelling, and the DNS",
                refused=True,
            )
        if isinstance(error, NewConnectionError):
            return ServiceUnreachable(
                f"{host} cannot be reached: {str(error).rpartition(': ')[2]}",
                "check that it runs, and the network to it",
                refused=True,
            )
        if isinstance(error, TimeoutError):
            hint = "check that it is healthy, and the network to it"
            if time.monotonic() < self.end:
                return ServiceUnreachable(f"{host} does not answer in time", hint)
            # It was heard of until then, and would only take as long again.
            within = f"{self.end - self.begun:.0f} s"
            return ServiceUnreachable(
                f"{host} did not answer within {within}", hint, exhausted=True
            )
        return ServiceUnreachable(
            f"{host} breaks off its answer", "check that it is healthy, and that it speaks HTTP"
        )

    def _manager(self) -> PoolManager:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        self.proxy = proxy_for(parts.scheme, host, port, os.environ)
        reach = self.reach
        if self.proxy:
            self.reach.check_written(host, port)
            reach = _ANYWHERE
        found = authorities.certificates(parts.netloc if parts.scheme == "https" else "")
        return _kept(reach, self.proxy, found)


_exchange: ContextVar[_Exchange] = ContextVar("exchange")


def _ask(
    manager: PoolManager,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: Body,
) -> BaseHTTPResponse:
    if not isinstance(body, bytes | None):
        body.seek(0)  # it may have been sent before, over a connection that broke
    return manager.request(
        method,
        url,
        body=body,
        headers={"User-Agent": USER_AGENT, **headers},
        redirect=False,
        retries=False,
        timeout=Timeout(connect=CONNECT_SECONDS, read=SILENCE_SECONDS),
        preload_content=False,
    )


class _Timed(io.RawIOBase):
    """What comes of a server, for as long as its exchange may take."""

    def __init__(self, sock: socket.socket, exchange: _Exchange) -> None:
        self._sock, self._exchange = sock, exchange
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._exchange.left(SILENCE_SECONDS))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Source:
    """A socket as `http.client` reads from it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        exchange = _exchange.get()
        exchange.peer = ip_address(self._sock.getpeername()[0]) if not exchange.proxy else None
        return io.BufferedReader(_Timed(self._sock, exchange))


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *rest: Any, **named: Any) -> None:
        super().__init__(_Source(sock), *rest, **named)  # type: ignore[arg-type]


class _Plain(HTTPConnection):
    reach = _ANYWHERE
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        return _connected(self, self.reach)

    def request(self, *arguments: Any, **named: Any) -> None:
        if self.sock:  # a kept one has the timeout of what was asked last
            self.sock.settimeout(_exchange.get().left(SILENCE_SECONDS))
        super().request(*arguments, **named)


class _Tls(_Plain, HTTPSConnection):
    """The same over TLS."""


class _TlsPool(HTTPSConnectionPool):
    """Reads whom to trust when it is first needed, which takes a tenth of a second."""

    found: authorities.Certificates

    def __init__(self, host: str, port: int | None = None, **options: Any) -> None:
        super().__init__(host, port, ssl_context=_trusted(self.found), **options)


_trusted = lru_cache(maxsize=16)(authorities.context)


def _connected(connection: HTTPConnection, reach: Reach) -> socket.socket:
    """Return a connection to one of the host's addresses, all of which may be connected to."""
    host, port = connection._dns_host, connection.port
    try:
        addresses = reach.addresses(host, port)
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    except UnicodeError as error:
        raise LocationParseError(host) from error
    except OSError as error:
        failed = socket.gaierror(socket.EAI_NONAME, str(error))
        raise NameResolutionError(connection.host, connection, failed) from error
    for number, address in enumerate(addresses, start=1):
        try:
            timeout = _exchange.get().left(CONNECT_SECONDS)
            made = socket.create_connection((str(address), port), timeout)
            for option in connection.socket_options or ():
                made.setsockopt(*option)
            return made
        except OSError as error:
            if number == min(len(addresses), _ADDRESSES):
                if isinstance(error, SocketTimeout):
                    raise ConnectTimeoutError(connection, "timed out") from error
                raise NewConnectionError(connection, str(error)) from error
    raise AssertionError("a name without addresses is an error")


@per_process(16)
def _kept(reach: Reach, proxy: str | None, found: authorities.Certificates) -> PoolManager:
    plain = type("Plain", (_Plain,), {"reach": reach})
    tls = type("Tls", (_Tls,), {"reach": reach})
    options: dict[str, Any] = {"num_pools": 16, "maxsize": 64}
    if proxy:
        login = unquote(urlsplit(proxy).netloc.rpartition("@")[0])
        headers = make_headers(proxy_basic_auth=login) if login else None
        manager: PoolManager = ProxyManager(proxy, proxy_headers=headers, **options)
    else:
        manager = PoolManager(**options)
    manager.pool_classes_by_scheme = {
        "http": type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("TlsPool", (_TlsPool,), {"ConnectionCls": tls, "found": found}),
    }
    return manager


@contextmanager
def _translated(exchange: _Exchange) -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        raise exchange.failure(error) from None


def _strerror(error: NameResolutionError) -> str:
    cause = error.__cause__
    return getattr(cause, "strerror", None) or "it has no address"


def _no_proxy(host: str, proxy: str, error: Exception) -> ImagemillError:
    said = one_line(str(error))
    if "407" in said:
        return OperatorError(
            f"The proxy {proxy} wants a login", "write http://USER:PASSWORD@HOST:PORT"
        )
    kind = TransientError if isinstance(error, OSError) else ServiceUnreachable
    return kind(  # the former for what the proxy itself says, which may stay so
        f"The proxy {proxy} does not lead to {host}: {said}",
        "check the proxy, and what HTTPS_PROXY, HTTP_PROXY and NO_PROXY say",
    )


def _no_tls(host: str, error: SSLError, reach: Reach) -> ImagemillError:
    cause = error.args[0]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return OperatorError(
            f"The certificate of {host} is not trusted: {cause.verify_message}",
            f"{authorities.HINT}, or put it into /etc/docker/certs.d/{host}/ca.crt",
        )
    if isinstance(cause, ssl.SSLError) and cause.reason in _PLAIN_ANSWERS:
        return OperatorError(
            f"{host} does not speak TLS", f"if that is meant, add {host} to {reach.plain_setting}"
        )
    return ServiceUnreachable(f"No TLS connection to {host}: {cause}", "check that it is healthy")
