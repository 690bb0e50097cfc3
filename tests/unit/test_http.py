"""The HTTP client, on real servers: its time limit, its bounds, proxies, certificates, redirects,
and how often a request is sent when its connection breaks."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.client import Configuration

from certificates import write_with_key
from imagemill import authorities, http
from imagemill.addresses import Reach
from imagemill.builders.kaniko.api import PODS, Cluster
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.time_limits import time_limit
from servers import free_port
from web import Application, Request, Response, Web, serve

NOWHERE = "http://server.invalid/path"


@contextlib.contextmanager
def dripping(start: bytes) -> Iterator[str]:
    """The address of a server that sends this, and then a byte every now and then for ever."""
    end = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(start)
            while not end.wait(0.05):
                connection.sendall(b"a")

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=drip, args=server.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        end.set()
        server.shutdown(socket.SHUT_RDWR)


DRIPS = {
    "status": b"HTTP/1.1 2",
    "header": b"HTTP/1.1 200 OK\r\nX: ",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\nX: ",
}


class TestTimeLimit:
    @pytest.mark.parametrize("start", DRIPS.values(), ids=DRIPS)
    def test_server_that_never_comes_to_an_end_is_given_up(self, start: bytes) -> None:
        with (
            dripping(start) as address,
            time_limit(0.5),
            pytest.raises(ServiceUnreachable, match="did not answer within"),
        ):
            http.request("GET", f"http://{address}/", {})

    @pytest.mark.parametrize("start", DRIPS.values(), ids=DRIPS)
    def test_answer_has_a_limit_of_its_own(
        self, start: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http, "ANSWER_SECONDS", 0.3)
        with dripping(start) as address, pytest.raises(ServiceUnreachable):
            http.request("GET", f"http://{address}/", {})

    def test_large_answer_may_take_as_long_as_its_block_has(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http, "ANSWER_SECONDS", 0.2)
        with (
            dripping(DRIPS["body"]) as address,
            time_limit(1),
            http.opened("GET", f"http://{address}/", {}) as reply,
            pytest.raises(ServiceUnreachable, match="did not answer within 1 s"),
        ):
            for _ in reply.chunks(1):
                pass

    @pytest.mark.parametrize("start", DRIPS.values(), ids=DRIPS)
    def test_question_to_a_cluster_is_given_up_with_all_its_tries(self, start: bytes) -> None:
        with (
            dripping(start) as address,
            time_limit(0.3),
            pytest.raises(ServiceUnreachable, match=f"The Kubernetes API at {address} does not"),
        ):
            Cluster(Configuration(host=f"http://{address}"), "default").get(PODS, "pod")

    def test_time_that_is_over_is_not_begun(self) -> None:
        with serve(lambda _: Response()) as web, time_limit(0):
            with pytest.raises(ServiceUnreachable):
                http.request("GET", f"http://{web.address}/", {})
            assert not web.requests


class TestBounds:
    @pytest.mark.parametrize("size", [http.HEADER_LIMIT + 1, 60_000])
    def test_header_that_is_too_long_is_an_error(self, size: int) -> None:
        with (
            serve(lambda _: Response(200, {"X-Long": "a" * size})) as web,
            pytest.raises(TransientError, match="a header 'X-Long' of"),
        ):
            http.request("GET", f"http://{web.address}/", {})

    def test_header_of_a_signature_is_taken(self) -> None:
        with serve(lambda _: Response(200, {"X-Long": "a" * http.HEADER_LIMIT})) as web:
            assert http.request("GET", f"http://{web.address}/", {}).status == 200


@contextlib.contextmanager
def proxy(answer: Callable[[Request], Response]) -> Iterator[list[Request]]:
    with serve(answer) as web, pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, f"http://me:pass%3Aword@{web.address}")
        patch.delenv("NO_PROXY", raising=False)
        patch.delenv("no_proxy", raising=False)
        yield web.requests


class TestProxies:
    def test_server_is_asked_by_the_proxy_with_its_login(self) -> None:
        with proxy(lambda request: Response(body=request.path.encode())) as asked:
            assert http.request("GET", NOWHERE, {}).body == NOWHERE.encode()
        assert asked[0].headers["proxy-authorization"] == "Basic bWU6cGFzczp3b3Jk"

    @pytest.mark.parametrize(
        ("status", "kind", "said"),
        [
            (502, TransientError, "does not lead to server.invalid"),
            (407, OperatorError, "login"),
        ],
    )
    def test_proxy_that_does_not_let_through_is_named(
        self, status: int, kind: type[ImagemillError], said: str
    ) -> None:
        with proxy(lambda _: Response(status)), pytest.raises(kind, match=said) as raised:
            http.request("GET", "https://server.invalid/", {})
        assert "The proxy 127.0.0.1:" in raised.value.message
        assert "pass" not in str(raised.value)

    def test_proxy_that_is_away_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
        with pytest.raises(ServiceUnreachable, match=r"The proxy 127\.0\.0\.1:\d+ does not lead"):
            http.request("GET", "https://server.invalid/", {})

    def test_this_machine_is_not_asked_by_the_proxy(self) -> None:
        with serve(lambda _: Response()) as web, proxy(lambda _: Response(502)) as asked:
            assert http.request("GET", f"http://{web.address}/", {}).status == 200
        assert not asked

    @pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "[fd00::1]", "0xa9.254.43518"])
    def test_inside_address_is_not_asked_by_the_proxy_either(self, host: str) -> None:
        with proxy(lambda _: Response()) as asked, pytest.raises(PermissionDenied):
            http.request("GET", f"http://{host}/", {}, reach=Reach())
        assert not asked


class TestRedirects:
    def test_only_what_a_server_may_lead_to_is_followed(self) -> None:
        with serve(lambda _: Response()) as other:
            leading = Response(302, {"Location": f"http://{other.address}/"})
            with serve(lambda _: leading) as web:
                url, named = f"http://{web.address}/", frozenset({other.address})
                reach = Reach(frozenset({web.address}), plain=named)
                with pytest.raises(PermissionDenied, match=r"its address 127\.0\.0\.1 is not pub"):
                    http.request("GET", url, {}, reach=reach)
                assert not other.requests
                assert http.request("GET", url, {}).status == 200  # both are here, without TLS

    def test_reach_holds_for_kept_connections_too(self) -> None:
        with serve(lambda _: Response()) as web:
            assert http.request("GET", f"http://{web.address}/", {}).status == 200
            with pytest.raises(PermissionDenied):
                http.request("GET", f"http://{web.address}/", {}, reach=Reach())
            assert len(web.requests) == 1


class TestCertificates:
    @pytest.fixture
    def server(self, tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
        pem = tmp_path / "server.pem"
        write_with_key(pem, "127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        return context, pem

    def test_authority_of_dockers_folder_is_trusted_for_its_host(
        self, server: tuple[ssl.SSLContext, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(authorities, "_CERTS_D", (tmp_path / "certs.d",))
        with serve(lambda _: Response(), server[0]) as web:
            with pytest.raises(OperatorError, match="is not trusted") as raised:
                http.request("GET", f"https://{web.address}/", {})
            assert f"certs.d/{web.address}/ca.crt" in raised.value.hint
            folder = tmp_path / "certs.d" / web.address
            folder.mkdir(parents=True)
            (folder / "ca.crt").write_bytes(server[1].read_bytes())
            assert http.request("GET", f"https://{web.address}/", {}).status == 200

    def test_folder_that_cannot_be_used_is_told(
        self, server: tuple[ssl.SSLContext, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(authorities, "_CERTS_D", (tmp_path,))
        folder = tmp_path / "server.invalid"
        folder.mkdir()
        (folder / "ca.crt").write_text("no certificate")
        with pytest.raises(OperatorError, match=r"certificates in .* cannot be used"):
            http.request("GET", "https://server.invalid/", {})


@given(st.text(max_size=40) | st.text("htps:/@#?%.[]0a\n\xff", max_size=40))
def test_any_redirect_is_a_url_that_can_be_asked_for_or_a_users_error(location: str) -> None:
    try:
        target = http.redirected("https://host/a/b", location)
    except UserError:
        return
    assert target.isascii()
    assert target.isprintable()
    assert " " not in target
    assert http.is_url(target)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("c.tar", "https://host:8443/a/c.tar"),
        ("/c?x=%20&y=1#z", "https://host:8443/c?x=%20&y=1"),
        ("//Other/c", "https://Other/c"),
        ("http://[::1]:80/c d", "http://[::1]:80/c%20d"),
        ("é".encode().decode("latin-1"), "https://host:8443/a/%C3%A9"),
    ],
)
def test_redirect_is_read_as_browsers_do(location: str, target: str) -> None:
    assert http.redirected("https://host:8443/a/b", location) == target


@pytest.mark.parametrize(
    "location",
    ["ftp://host/a", "file:///etc/passwd", "https://u:p@host/", "https://[/", "gopher://x"],
)
def test_redirect_elsewhere_is_refused(location: str) -> None:
    with pytest.raises(UserError):
        http.redirected("https://host/a", location)


# --- Connections that break ---

HANG_UP = None
CUT = Response(200, {"Content-Length": "1000", "Connection": "close"}, b"{")


def answering(*answers: Response | None) -> Application:
    """A server that gives these answers, one after the other, and then hangs up."""
    left = list(answers)

    def answer(_: Request) -> Response | None:
        return left.pop(0) if left else HANG_UP

    return answer


def ask(web: Web) -> int:
    return http.request("GET", f"http://{web.address}/v2/", {}).status


def test_new_connection_that_breaks_is_not_tried_again() -> None:
    with serve(answering(HANG_UP)) as web:
        with pytest.raises(ServiceUnreachable, match="breaks off"):
            ask(web)
        assert len(web.requests) == 1


def test_kept_connection_that_breaks_is_replaced_and_the_request_sent_once_more() -> None:
    with serve(answering(Response(), HANG_UP, Response())) as web:
        assert ask(web) == 200
        assert ask(web) == 200
        ports = [each.port for each in web.requests]
    assert len(ports) == 3
    assert ports[0] == ports[1] != ports[2]


def test_connection_that_replaced_a_kept_one_is_not_replaced_again() -> None:
    with serve(answering(Response(), HANG_UP, HANG_UP)) as web:
        assert ask(web) == 200
        with pytest.raises(ServiceUnreachable, match="breaks off"):
            ask(web)
        assert len(web.requests) == 3


def test_answer_that_has_begun_is_not_asked_for_again() -> None:
    with serve(answering(Response(), CUT)) as web:
        assert ask(web) == 200
        with pytest.raises(ServiceUnreachable, match="breaks off"):
            ask(web)
        assert len(web.requests) == 2
