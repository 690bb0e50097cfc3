"""A proxy in front of an HTTP server that fails, resets, corrupts and delays what a test tells it
to.

Clients are pointed at its `url` in place of the server's. The `Host` header goes through as it
came, so signatures over it hold.

    with FaultyProxy("http://127.0.0.1:8333") as proxy:
        proxy.fail_next(503, times=2, match="^PUT ")
        proxy.reset_next(after_bytes=1000)
"""

import contextlib
import http.client
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NoReturn, Self
from urllib.parse import urlsplit

_BLOCK = 64 * 1024
_OF_THE_CONNECTION = frozenset(
    {"connection", "expect", "keep-alive", "proxy-connection", "te", "transfer-encoding"}
)
"""Headers that concern one connection, and so are not handed on."""


class Held:
    """A request that waits, once it `came`, until it may `go`."""

    def __init__(self) -> None:
        self.came, self.go = threading.Event(), threading.Event()


@dataclass
class _Fault:
    """What happens to the next `times` requests whose `METHOD PATH` matches."""

    times: int
    match: re.Pattern[str]
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset_after: int | None = None
    corrupts: bool = False
    held: "Held | None" = None


class FaultyProxy:
    """Hands requests on to `upstream` (`http://HOST:PORT[/PATH]`, or https, whose certificate is
    not checked).

    `tls` makes the proxy itself speak TLS. Faults are used up in the order in which they were asked
    for; `match` is a regular expression that is searched for in `METHOD PATH?QUERY`, and fits all
    requests if it is not given.
    """

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, str]] = []
        """Method and path (with its query) of all requests that came, in their order."""
        self._upstream = urlsplit(upstream)
        self._faults: list[_Fault] = []
        self._delay = 0.0
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._scheme = "https" if tls else "http"
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def origin(self) -> str:
        """Scheme, host and port of the proxy."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """The proxy's address, with the path that `upstream` has."""
        return f"{self.origin}{self._upstream.path}"

    def asked(self, match: str) -> int:
        """How many requests have come whose `METHOD PATH?QUERY` matches."""
        return sum(re.search(match, " ".join(request)) is not None for request in self.requests)

    def fail_next(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        times: int = 1,
        match: str = "",
        body: bytes = b"",
    ) -> None:
        """Answer the next requests with `status` in place of the server, after they have been
        read.
        """
        self._faults.append(_Fault(times, re.compile(match), status, headers or {}, body))

    def reset_next(self, after_bytes: int = 0, times: int = 1, match: str = "") -> None:
        """Reset the connection after so many bytes of the request's body and then of the answer's
        have gone through.
        """
        self._faults.append(_Fault(times, re.compile(match), reset_after=after_bytes))

    def corrupt_next(self, times: int = 1, match: str = "") -> None:
        """Change the first byte of the request's body or, if it has none, of the answer's."""
        self._faults.append(_Fault(times, re.compile(match), corrupts=True))

    def hold_next(self, match: str = "") -> Held:
        """Have the next request wait until it may go on."""
        held = Held()
        self._faults.append(_Fault(1, re.compile(match), held=held))
        return held

    def delay(self, seconds: float) -> None:
        """Let each request from now on wait so long."""
        self._delay = seconds

    def clear(self) -> None:
        """Forget all faults that have not happened, the delay, and the requests so far."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()
            self._delay = 0.0

    def _fault(self, method: str, path: str) -> _Fault | None:
        """Note the request; the fault that is to happen to it."""
        with self._lock:
            self.requests.append((method, path))
            for fault in self._faults:
                if fault.times > 0 and fault.match.search(f"{method} {path}"):
                    fault.times -= 1
                    return fault
            return None

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._upstream.hostname or "", self._upstream.port
        if self._upstream.scheme == "https":
            return http.client.HTTPSConnection(
                host, port, timeout=60, context=ssl._create_unverified_context()
            )
        return http.client.HTTPConnection(host, port, timeout=60)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(_Handler):
            def serve(self) -> None:
                fault = proxy._fault(self.command, self.path)
                proxy._closed.wait(proxy._delay)
                if fault and fault.held:
                    fault.held.came.set()
                    fault.held.go.wait()
                body = _Body(self, fault)
                if fault and fault.status is not None:
                    body.drop()
                    self.reply(fault.status, fault.headers, [fault.body])
                    return
                with contextlib.closing(proxy._connect()) as connection:
                    self.forward(connection, body)

            def forward(self, connection: http.client.HTTPConnection, body: "_Body") -> None:
                connection.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    if name.lower() not in _OF_THE_CONNECTION:
                        connection.putheader(name, value)
                if body.chunked:
                    connection.putheader("Transfer-Encoding", "chunked")
                blocks = body.request()
                with contextlib.suppress(BrokenPipeError):  # it answers before it has read all
                    connection.endheaders(blocks, encode_chunked=body.chunked)
                for _ in blocks:
                    pass
                answer = connection.getresponse()
                headers = {name: self.ours(value) for name, value in answer.getheaders()}
                self.reply(answer.status, headers, body.answer(answer))

            def ours(self, value: str) -> str:
                """A header's value, with our own address where it has the server's."""
                return value.replace(
                    f"{proxy._upstream.scheme}://{proxy._upstream.netloc}", proxy.origin
                )

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Connections that break are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer's head and body go out together

    def serve(self) -> None:
        raise NotImplementedError

    do_GET = do_HEAD = do_PUT = do_POST = lambda self: self.serve()  # noqa: N815
    do_DELETE = do_PATCH = do_OPTIONS = do_GET  # noqa: N815

    def handle_expect_100(self) -> bool:
        """Have the client send its body; without the flush it would wait in vain before it does."""
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()
        return True

    def log_message(self, *_: object) -> None:
        pass

    def reply(
        self, status: int, headers: Mapping[str, str], blocks: "Iterator[bytes] | list[bytes]"
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _OF_THE_CONNECTION:
                self.send_header(name, value)
        has_body = self.command != "HEAD" and status not in (204, 304)
        chunked = has_body and "content-length" not in {name.lower() for name in headers}
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for block in blocks if has_body else ():
            if block:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def reset(self) -> NoReturn:
        """End the connection with a reset in place of an orderly close."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        socket.close(self.connection.detach())
        raise ConnectionResetError


class _Body:
    """The bytes of one request and its answer on their way through, with the fault that happens to
    them.
    """

    def __init__(self, handler: _Handler, fault: _Fault | None) -> None:
        self._handler = handler
        self._left = fault.reset_after if fault else None
        self._corrupts = fault.corrupts if fault else False
        self.chunked = "chunked" in handler.headers.get("Transfer-Encoding", "")

    def request(self) -> Iterator[bytes]:
        """The request's body, as far as it may go through."""
        return self._through(self._chunks() if self.chunked else self._plain())

    def answer(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        """The answer's body, as far as it may go through."""
        yield from self._through(iter(lambda: answer.read1(_BLOCK), b""))
        if self._left is not None:
            self._handler.reset()

    def drop(self) -> None:
        """Read the request's body for nothing."""
        for _ in self._chunks() if self.chunked else self._plain():
            pass

    def _through(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        if self._left == 0:
            self._handler.reset()
        for block in blocks:
            if self._corrupts:
                self._corrupts = False
                block = bytes([block[0] ^ 1]) + block[1:]
            if self._left is not None and len(block) >= self._left:
                yield block[: self._left]
                self._handler.reset()
            if self._left is not None:
                self._left -= len(block)
            yield block

    def _plain(self) -> Iterator[bytes]:
        left = int(self._handler.headers.get("Content-Length", 0))
        while left:
            block = self._handler.rfile.read1(min(left, _BLOCK))
            if not block:
                raise ConnectionError("the client has gone")
            left -= len(block)
            yield block

    def _chunks(self) -> Iterator[bytes]:
        file = self._handler.rfile
        while size := int(file.readline().partition(b";")[0], 16):
            yield file.read(size)
            file.readline()
        while file.readline().strip():
            pass  # trailers
