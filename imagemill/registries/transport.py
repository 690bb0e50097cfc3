"""HTTP as registries need it: kept connections, redirects that take no credentials along, and small
answers.

It is on the path of every build, so connections are kept for as long as the process lives.
"""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import lru_cache
from ipaddress import ip_address
from typing import BinaryIO, NamedTuple
from urllib.parse import urljoin, urlsplit

from urllib3 import BaseHTTPResponse, HTTPHeaderDict, PoolManager, Timeout
from urllib3.exceptions import (
    HTTPError,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    SSLError,
    TimeoutError,
)

from imagemill.errors import ImagemillError, OperatorError, ServiceUnreachable, UserError
from imagemill.retry_after import retry_after_seconds

TIMEOUT = Timeout(connect=10.0, read=30.0)
"""Seconds of silence before a server counts as unreachable."""

BODY_LIMIT = 4 << 20
"""Bytes of an answer. Registries take manifests of 4 MiB, and may refuse larger ones
(specification, "Pushing Manifests")."""

_REDIRECTS = 5
_USER_AGENT = "imagemill"


class Answer(NamedTuple):
    """A server's answer; `url` is where it came from after redirects, and may hold a signature: do
    not print it.
    """

    status: int
    headers: HTTPHeaderDict
    body: bytes
    url: str

    @property
    def media_type(self) -> str:
        """The content type, without its parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the server wants to be asked again (RFC 9110, section 10.2.3), if it
        says so.
        """
        return retry_after_seconds(self.headers.get("Retry-After"))


def request(
    method: str, url: str, headers: Mapping[str, str], body: bytes | BinaryIO | None = None
) -> Answer:
    """Ask, and follow redirects; credentials do not go along to another server.

    Where there is no answer it is a `ServiceUnreachable` or, if waiting does not help, an
    `OperatorError`, or a `UserError` for a host that cannot be one.
    """
    for _ in range(_REDIRECTS + 1):
        answer = _exchange(method, url, headers, body)
        location = answer.headers.get("Location")
        if not location or answer.status not in (301, 302, 303, 307, 308):
            return answer
        target = _target(url, location)
        if origin(target) != origin(url):
            headers = _for_another_server(method, url, target, headers)
        url = target
    raise ServiceUnreachable(
        f"{host_of(url)} redirects more than {_REDIRECTS} times", "check the registry's address"
    )


class Reply:
    """A server's answer of which the head has come, and the body has not been read."""

    def __init__(self, response: BaseHTTPResponse, url: str) -> None:
        self.status, self.headers, self.url = response.status, response.headers, url
        self._response = response

    def content(self) -> bytes:
        """Return the whole body, which has to be small."""
        return _content(self._response, self.url)

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the body's bytes as they come, at most `size` at a time."""
        try:
            yield from self._response.stream(size, decode_content=False)
        except HTTPError as error:
            raise _no_answer(self.url, error) from None


@contextmanager
def opened(
    method: str, url: str, headers: Mapping[str, str], body: bytes | BinaryIO | None = None
) -> Iterator[Reply]:
    """Ask, follow redirects, and give the answer's head. Errors are those of `request`."""
    for _ in range(_REDIRECTS + 1):
        try:
            response = _send(method, url, headers, body)
        except HTTPError as error:
            raise _no_answer(url, error) from None
        with closing(response):
            location = response.headers.get("Location")
            if not location or response.status not in (301, 302, 303, 307, 308):
                yield Reply(response, url)
                response.drain_conn()
                response.release_conn()
                return
        target = _target(url, location)
        if origin(target) != origin(url):
            headers = _for_another_server(method, url, target, headers)
        url = target
    raise ServiceUnreachable(
        f"{host_of(url)} redirects more than {_REDIRECTS} times", "check the registry's address"
    )


def speaks_http(host: str) -> bool:
    """Whether the server at `host` answers without TLS. One that wants TLS says 400, or breaks
    off.
    """
    url = f"http://{host}/v2/"
    try:
        response = _ask("GET", url, {}, None)
        _content(response, url)
    except ProtocolError:
        return False
    except HTTPError as error:
        raise _no_answer(url, error) from None
    return response.status != 400


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine itself."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def origin(url: str) -> tuple[str, str]:
    """Scheme, host and port: what makes two URLs the same server's."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def host_of(url: str) -> str:
    """Host and port of a URL, which is all of it that is fit to be told."""
    return urlsplit(url).netloc.rpartition("@")[2]


def is_url(text: str) -> bool:
    """Whether this is an address that can be asked."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _target(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
    except ValueError:
        target = ""
    if not is_url(target):
        raise ServiceUnreachable(f"{host_of(url)} redirects to what is no URL", "is it a registry?")
    return target


def _for_another_server(
    method: str, url: str, target: str, headers: Mapping[str, str]
) -> Mapping[str, str]:
    here, there = host_of(url), host_of(target)
    if url.startswith("https:") and not target.startswith("https:"):
        raise OperatorError(f"{here} redirects to {there} without TLS", "let it redirect to https")
    if method == "POST":  # the body is what a token is asked with
        raise OperatorError(
            f"{here} redirects the request for a token to {there}",
            "let it name the other as its realm",
        )
    return {name: value for name, value in headers.items() if name != "Authorization"}


def _exchange(
    method: str, url: str, headers: Mapping[str, str], body: bytes | BinaryIO | None
) -> Answer:
    try:
        response = _send(method, url, headers, body)
        content = _content(response, url)
    except HTTPError as error:
        raise _no_answer(url, error) from None
    return Answer(response.status, response.headers, content, url)


def _send(
    method: str, url: str, headers: Mapping[str, str], body: bytes | BinaryIO | None
) -> BaseHTTPResponse:
    """Send once; once more if a kept connection breaks before there is an answer, as the server may
    close it just then.

    All that is asked here can be asked twice (RFC 9112, section 9.3.1).
    """
    pool = _pool(os.getpid()).connection_from_url(url)
    made = pool.num_connections
    try:
        return _ask(method, url, headers, body)
    except ProtocolError:
        if pool.num_connections > made:  # it was a new connection
            raise
        return _ask(method, url, headers, body)


def _ask(
    method: str, url: str, headers: Mapping[str, str], body: bytes | BinaryIO | None
) -> BaseHTTPResponse:
    return _pool(os.getpid()).request(
        method,
        url,
        body=body,
        headers={"User-Agent": _USER_AGENT, **headers},
        redirect=False,
        retries=False,
        timeout=TIMEOUT,
        preload_content=False,
    )


def _content(response: BaseHTTPResponse, url: str) -> bytes:
    content = response.read(BODY_LIMIT + 1)
    if len(content) > BODY_LIMIT:
        response.close()
        raise ServiceUnreachable(
            f"{host_of(url)} answers with more than {BODY_LIMIT >> 20} MiB", "is it a registry?"
        )
    return content


@lru_cache(maxsize=1)
def _pool(pid: int) -> PoolManager:
    """The connections of the process `pid`: a forked child must not write to those of its
    parent.
    """
    return PoolManager(num_pools=16, maxsize=64, ssl_context=ssl.create_default_context())


def _no_answer(url: str, error: HTTPError) -> ImagemillError:
    host = host_of(url)
    if isinstance(error, SSLError):
        return _no_tls(host, error)
    if isinstance(error, LocationValueError):
        return UserError(
            f"{host} cannot be a host", "check the registry's host and port in the image reference"
        )
    if isinstance(error, NameResolutionError):
        return ServiceUnreachable(
            f"The name of {host} cannot be resolved", "check the name, and the DNS"
        )
    if isinstance(error, NewConnectionError):
        reason = str(error).rpartition(": ")[2]
        return ServiceUnreachable(
            f"{host} cannot be reached: {reason}", "check that it runs, and the network to it"
        )
    if isinstance(error, TimeoutError):
        return ServiceUnreachable(
            f"{host} does not answer in time", "check that it is healthy, and the network to it"
        )
    return ServiceUnreachable(
        f"{host} breaks off its answer", "check that it is healthy, and that it speaks HTTP"
    )


def _no_tls(host: str, error: SSLError) -> ImagemillError:
    cause = error.args[0]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return OperatorError(
            f"The certificate of {host} is not trusted: {cause.verify_message}",
            "add the authority that signed it to the trusted certificates of the worker's system",
        )
    if isinstance(cause, ssl.SSLError) and cause.reason in (
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
    ):
        return OperatorError(
            f"{host} does not speak TLS",
            f"if that is meant, add {host} to IMAGEMILL_INSECURE_REGISTRIES",
        )
    return ServiceUnreachable(f"No TLS connection to {host}: {cause}", "check that it is healthy")
