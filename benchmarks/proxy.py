"""A proxy before a registry that counts: requests, by what they ask for, and bytes both ways."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

_CHUNK = 1 << 16
_REQUEST = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE) (/v2\S*) HTTP/1\.1\r\n")
_LONGEST = 2048


@dataclass
class Counts:
    """What has gone through the proxy since `clear`."""

    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path."""
    sent: int = 0
    """Bytes to the registry."""
    received: int = 0
    on_request: Callable[[], object] = bool
    """Called before a request is handed on."""

    def clear(self) -> None:
        self.requests.clear()
        self.sent = self.received = 0


@contextmanager
def counting(registry: str) -> Iterator[tuple[str, Counts]]:
    """The address of a proxy before `registry`, and what it counts."""
    host, _, port = registry.partition(":")
    counts = Counts()
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            while True:
                try:
                    client = server.accept()[0]
                except OSError:  # closed
                    return
                arguments = (client, (host, int(port)), counts)
                threading.Thread(target=_connection, args=arguments, daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"localhost:{server.getsockname()[1]}", counts


def _connection(client: socket.socket, registry: tuple[str, int], counts: Counts) -> None:
    with client, socket.create_connection(registry) as upstream:
        answers = threading.Thread(target=_answers, args=(client, upstream, counts), daemon=True)
        answers.start()
        _requests(client, upstream, counts)
        answers.join()


def _requests(client: socket.socket, upstream: socket.socket, counts: Counts) -> None:
    tail = b""
    while data := _received(client):
        text = tail + data
        for found in _REQUEST.finditer(text):
            if found.end() > len(tail):
                counts.requests.append((found[1].decode(), found[2].decode()))
                counts.on_request()
        tail = text[-_LONGEST:]
        counts.sent += len(data)
        if not _send(upstream, data):
            break
    _end(upstream)


def _answers(client: socket.socket, upstream: socket.socket, counts: Counts) -> None:
    while data := _received(upstream):
        counts.received += len(data)
        if not _send(client, data):
            break
    _end(client)


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(_CHUNK)
    except OSError:
        return b""


def _send(end: socket.socket, data: bytes) -> bool:
    try:
        end.sendall(data)
    except OSError:
        return False
    return True


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_WR)
