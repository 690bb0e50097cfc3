"""How the registry client takes what no healthy registry answers, from a server that answers as a
test says.
"""

import base64
import datetime
import hashlib
import io
import json
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping
from email.utils import format_datetime
from pathlib import Path

import pytest

from credentials import Always
from imagemill import http
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.ports import Credentials
from imagemill.reference import ImageReference
from imagemill.registries import blobs_for
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import MANIFEST_TYPES, OciRegistry
from servers import free_port
from web import Application, Request, Response, Web, serve

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
FOUND = Response(
    200, {"Content-Type": MANIFEST_TYPES[0], "Docker-Content-Digest": DIGEST}, MANIFEST
)
BARE = Response(200, {"Content-Type": f"{MANIFEST_TYPES[0]}; charset=utf-8"}, MANIFEST)
HTML = Response(200, {"Content-Type": "text/html"}, b"<html>Welcome to nginx!</html>")
PASSWORD = "open-sesame"


def client(found: Credentials | None = None, insecure: frozenset[str] = frozenset()) -> OciRegistry:
    return OciRegistry(Always(found), insecure)


USER = Credentials("user", PASSWORD)


def image(web: Web) -> ImageReference:
    return ImageReference.parse(f"{web.address}/a/b:v1")


def answering(response: Response, head: Response | None = None) -> Application:
    """A server with one answer for manifests, or one for HEAD and another for the rest."""

    def answer(request: Request) -> Response:
        if request.path == "/v2/":
            return Response()
        return head if head and request.method == "HEAD" else response

    return answer


def refusal(status: int, code: str, headers: Mapping[str, str] | None = None) -> Response:
    body = {"errors": [{"code": code, "message": "in the registry's words", "detail": {}}]}
    return Response(
        status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(body).encode()
    )


def error_of(response: Response) -> ImagemillError:
    """The error that `digest` raises where each answer is this one."""
    with serve(answering(response)) as web, pytest.raises(ImagemillError) as raised:
        client(USER).digest(image(web))
    assert raised.value.hint
    assert PASSWORD not in str(raised.value)
    return raised.value


class TestDigest:
    def test_header_of_a_head_is_enough(self) -> None:
        with serve(answering(FOUND)) as web:
            assert client().digest(image(web)) == DIGEST
            assert [r.method for r in web.requests] == [
                "GET",
                "HEAD",
            ]  # the first asks whether it is plain HTTP
            assert web.requests[1].path == "/v2/a/b/manifests/v1"
            assert web.requests[1].headers["accept"] == ", ".join(MANIFEST_TYPES)

    def test_without_the_header_the_manifest_is_hashed(self) -> None:
        with serve(answering(BARE)) as web:
            assert client().digest(image(web)) == DIGEST

    @pytest.mark.parametrize("status", [404, 405])
    def test_registry_that_knows_no_head_is_asked_with_get(self, status: int) -> None:
        with serve(answering(FOUND, head=Response(status))) as web:
            assert client().digest(image(web)) == DIGEST

    def test_sha512_is_hashed_as_such(self) -> None:
        digest = f"sha512:{hashlib.sha512(MANIFEST).hexdigest()}"
        with serve(answering(BARE)) as web:
            assert client().digest(image(web).with_digest(digest)) == digest

    @pytest.mark.parametrize("code", ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"])
    def test_registry_that_says_so_makes_it_absent(self, code: str) -> None:
        with serve(answering(refusal(404, code))) as web:
            assert client().digest(image(web)) is None

    @pytest.mark.parametrize(
        "response",
        [
            Response(404),
            Response(404, {"Content-Type": "text/html"}, b"<html>404 Not Found</html>"),
            Response(404, {"Content-Type": "application/json"}, b'{"errors": []}'),
            Response(404, {"Content-Type": "application/json"}, b'{"errors": "MANIFEST_UNKNOWN"}'),
            Response(404, {"Content-Type": "application/json"}, b"[" * 100_000),
            HTML,
            Response(204),
            Response(304),
            Response(418),
        ],
    )
    def test_server_that_is_no_registry_is_an_error_never_absent(self, response: Response) -> None:
        error = error_of(response)
        assert type(error) is TransientError
        assert "does not answer as a registry does" in error.message
        assert "is the host and port of a registry" in error.hint

    @pytest.mark.parametrize("code", ["NAME_INVALID", "UNSUPPORTED"])
    def test_question_that_the_registry_refuses_is_not_asked_again(self, code: str) -> None:
        with (
            serve(answering(refusal(400, code), head=Response(405))) as web,
            pytest.raises(OperatorError) as raised,
        ):
            client().digest(image(web))
        assert f"400 {code} in the registry's words" in raised.value.message

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_failing_registry_is_unreachable(self, status: int) -> None:
        error = error_of(Response(status, {"Retry-After": "7"}))
        assert type(error) is ServiceUnreachable
        assert f"answers {status}" in error.message
        assert error.retry_after == 7

    def test_too_many_requests_say_when_to_ask_again(self) -> None:
        error = error_of(refusal(429, "TOOMANYREQUESTS", {"Retry-After": "120"}))
        assert type(error) is ServiceUnreachable
        assert error.retry_after == 120
        assert "too many requests" in error.message

    def test_retry_after_may_be_a_date(self) -> None:
        date = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        error = error_of(Response(429, {"Retry-After": format_datetime(date, usegmt=True)}))
        assert isinstance(error, TransientError)
        assert error.retry_after is not None
        assert 0 < error.retry_after <= 3600

    @pytest.mark.parametrize("headers", [{}, {"Retry-After": "soon"}, {"Retry-After": "9" * 5000}])
    def test_retry_after_may_be_missing_or_nonsense(self, headers: Mapping[str, str]) -> None:
        error = error_of(Response(429, headers))
        assert isinstance(error, TransientError)
        assert error.retry_after is None

    def test_forbidden_is_a_permission_denied(self) -> None:
        with (
            serve(answering(refusal(403, "DENIED"), head=Response(405))) as web,
            pytest.raises(PermissionDenied) as raised,
        ):
            client().digest(image(web))
        assert raised.value.message.startswith(f"No permission to pull from {web.address}/a/b: ")
        assert raised.value.message.endswith("403 DENIED in the registry's words")

    @pytest.mark.parametrize("digest", ["", "sha256:abc", "v1", DIGEST.upper()])
    def test_header_that_is_no_digest_is_an_error(self, digest: str) -> None:
        error = error_of(Response(200, {"Docker-Content-Digest": digest}))
        assert type(error) is TransientError
        assert "answers with the digest" in error.message

    @pytest.mark.parametrize("response", [FOUND, BARE])
    def test_other_digest_than_the_one_asked_for_is_an_error(self, response: Response) -> None:
        with (
            serve(answering(response)) as web,
            pytest.raises(TransientError, match="answers with the digest"),
        ):
            client().digest(image(web).with_digest(f"sha256:{'1' * 64}"))

    def test_endless_answer_is_an_error(self) -> None:
        body = b" " * (http.BODY_LIMIT + 1)
        error = error_of(Response(200, {"Content-Type": MANIFEST_TYPES[0]}, body))
        assert type(error) is TransientError
        assert "more than 4 MiB" in error.message


class TestTag:
    @staticmethod
    def registry(put: Response) -> Application:
        """A registry that knows the manifest by its digest only."""

        def answer(request: Request) -> Response:
            if request.method == "PUT":
                return put
            return (
                FOUND
                if request.path == "/v2/" or request.path.endswith(DIGEST)
                else refusal(404, "MANIFEST_UNKNOWN")
            )

        return answer

    def test_same_bytes_are_put_under_the_same_media_type(self) -> None:
        with serve(self.registry(Response(201, {"Docker-Content-Digest": DIGEST}))) as web:
            client().tag(image(web).with_digest(DIGEST), ("x", "y"))
            puts = web.asked("PUT", "")
        assert [(r.path, r.headers["content-type"], r.body) for r in puts] == [
            (f"/v2/a/b/manifests/{tag}", MANIFEST_TYPES[0], MANIFEST) for tag in ("x", "y")
        ]

    def test_tag_that_is_there_is_not_put_again(self) -> None:
        with serve(answering(FOUND)) as web:
            client().tag(image(web).with_digest(DIGEST), ("x",))
            assert not web.asked("PUT", "")

    def test_no_tags_are_no_requests(self) -> None:
        with serve(answering(FOUND)) as web:
            client().tag(image(web).with_digest(DIGEST), ())
            assert not web.requests

    @pytest.mark.parametrize("headers", [{"Docker-Content-Digest": f"sha256:{'1' * 64}"}, {}])
    def test_registry_that_stores_something_else_is_an_error(
        self, headers: Mapping[str, str]
    ) -> None:
        with (
            serve(self.registry(Response(201, headers))) as web,
            pytest.raises(TransientError, match=f"was given {DIGEST}, and is"),
        ):
            client().tag(image(web).with_digest(DIGEST), ("x",))

    def test_manifest_that_does_not_fit_its_digest_is_not_put(self) -> None:
        def answer(request: Request) -> Response:
            if request.path.endswith("/x"):
                return refusal(404, "MANIFEST_UNKNOWN")
            return Response(200, {**BARE.headers, "Docker-Content-Digest": DIGEST}, b"{}")

        with serve(answer) as web:
            with pytest.raises(TransientError, match="answers with the digest"):
                client().tag(image(web).with_digest(DIGEST), ("x",))
            assert not web.asked("PUT", "")

    def test_refused_put_names_the_push(self) -> None:
        with (
            serve(self.registry(refusal(403, "DENIED"))) as web,
            pytest.raises(PermissionDenied) as raised,
        ):
            client().tag(image(web).with_digest(DIGEST), ("x",))
        assert f"No permission to push to {web.address}/a/b" in raised.value.message

    def test_reference_without_a_digest_is_a_mistake_of_the_caller(self) -> None:
        with pytest.raises(ValueError, match="has no digest"):
            client().tag(ImageReference.parse("localhost:1/a:v1"), ("x",))


class TestRedirects:
    @staticmethod
    def behind(location: str, status: int = 307) -> Application:
        """A registry that wants a password, and then redirects."""

        def answer(request: Request) -> Response:
            if request.path == "/v2/":
                return Response()
            if "authorization" not in request.headers:
                return Response(401, {"WWW-Authenticate": 'Basic realm="here"'})
            return Response(status, {"Location": location})

        return answer

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_other_server_does_not_get_the_credentials(self, status: int) -> None:
        with (
            serve(answering(FOUND)) as other,
            serve(self.behind(f"http://{other.address}/blob?sig=1", status)) as web,
        ):
            assert client(USER, frozenset({other.address})).digest(image(web)) == DIGEST
            assert [r.method for r in other.requests] == ["HEAD"]
            assert "authorization" not in other.requests[0].headers
            assert other.requests[0].headers["accept"]

    def test_same_server_gets_the_credentials(self) -> None:
        def answer(request: Request) -> Response | None:
            moved = request.path == "/moved/v1" and "authorization" in request.headers
            return FOUND if moved else self.behind("/moved/v1")(request)

        with serve(answer) as web:
            assert client(USER).digest(image(web)) == DIGEST
            assert (
                web.requests[-1].headers["authorization"]
                == web.requests[-2].headers["authorization"]
            )

    def test_put_is_redirected_with_its_bytes(self) -> None:
        with serve(TestTag.registry(Response(201, {"Docker-Content-Digest": DIGEST}))) as other:

            def answer(request: Request) -> Response:
                if request.path == "/v2/":
                    return Response()
                return Response(307, {"Location": f"http://{other.address}{request.path}"})

            with serve(answer) as web:
                client(insecure=frozenset({other.address})).tag(
                    image(web).with_digest(DIGEST), ("x",)
                )
            assert other.requests[-1].body == MANIFEST

    def test_login_that_another_server_asks_for_is_not_answered(self) -> None:
        ask = Response(401, {"WWW-Authenticate": 'Basic realm="there"'})
        with (
            serve(lambda _: ask) as other,
            serve(answering(Response(307, {"Location": f"http://{other.address}/"}))) as web,
        ):
            with pytest.raises(PermissionDenied, match=other.address):
                client(USER).digest(image(web))
            assert all("authorization" not in r.headers for r in (*web.requests, *other.requests))

    def test_circle_ends(self) -> None:
        error = error_of(Response(307, {"Location": "/v2/a/b/manifests/v1"}))
        assert type(error) is UserError
        assert "redirects more than 5 times" in error.message

    @pytest.mark.parametrize("location", ["http://[bad", "ftp://host/x", "https:"])
    def test_redirect_to_no_url_is_an_error(self, location: str) -> None:
        error = error_of(Response(307, {"Location": location}))
        assert "redirects to what is no URL" in error.message

    def test_signature_in_a_redirect_is_not_told(self) -> None:
        with serve(lambda _: Response(500)) as other:
            error = error_of(
                Response(307, {"Location": f"http://{other.address}/x?sig={PASSWORD}"})
            )
        assert other.address in error.message


class TestLogin:
    @staticmethod
    def guarded(token: Response, challenge: str = "") -> Application:
        """A registry and its token server in one, which lets the token `good` in."""

        def answer(request: Request) -> Response:
            if request.path == "/v2/":
                return Response()
            if request.path.startswith("/token"):
                return token
            if request.headers.get("authorization") == "Bearer good":
                return FOUND
            realm = f'Bearer realm="http://{request.headers["host"]}/token",service="s",scope="repository:a/b:pull"'
            return Response(401, {"WWW-Authenticate": challenge or realm})

        return answer

    @staticmethod
    def token(**fields: object) -> Response:
        return Response(200, {"Content-Type": "application/json"}, json.dumps(fields).encode())

    def error_of(
        self,
        token: Response,
        challenge: str = "",
        found: Credentials = USER,
        insecure: frozenset[str] = frozenset(),
    ) -> ImagemillError:
        with serve(self.guarded(token, challenge)) as web, pytest.raises(ImagemillError) as raised:
            client(found, insecure).digest(image(web))
        assert raised.value.hint
        assert PASSWORD not in str(raised.value)
        return raised.value

    @pytest.mark.parametrize("name", ["token", "access_token"])
    def test_either_name_of_the_token_will_do(self, name: str) -> None:
        with serve(self.guarded(self.token(**{name: "good"}, expires_in=None))) as web:
            assert client(USER).digest(image(web)) == DIGEST
            asked = web.asked("GET", "/token")
        expected = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
        assert [r.headers["authorization"] for r in asked] == [f"Basic {expected}"]

    def test_realm_keeps_its_own_query(self) -> None:
        with serve(lambda _: self.token(token="good")) as other:
            challenge = f'Bearer realm="http://{other.address}/token?account=me",service="s"'
            with serve(self.guarded(HTML, challenge)) as web:
                assert client(insecure=frozenset({other.address})).digest(image(web)) == DIGEST
        assert other.requests[0].query == {
            "account": ["me"],
            "service": ["s"],
            "scope": ["repository:a/b:pull"],
        }

    def test_scopes_that_the_registry_wants_besides_are_asked_for(self) -> None:
        with serve(lambda _: self.token(token="good")) as other:
            scopes = "repository:a/b:pull repository:base/image:pull aws"
            challenge = f'Bearer realm="http://{other.address}/token",service="s",scope="{scopes}"'
            with serve(self.guarded(HTML, challenge)) as web:
                assert client(insecure=frozenset({other.address})).digest(image(web)) == DIGEST
        assert other.requests[0].query["scope"] == scopes.split()

    def test_token_is_preferred_to_basic(self) -> None:
        with serve(lambda _: self.token(token="good")) as other:
            challenge = f'Basic realm="Realm, with comma", Bearer realm="http://{other.address}/t",service="s"'
            with serve(self.guarded(HTML, challenge)) as web:
                assert client(USER, frozenset({other.address})).digest(image(web)) == DIGEST

    def test_token_that_is_not_accepted_any_more_is_replaced_once(self) -> None:
        good = {"token": "first"}

        def answer(request: Request) -> Response:
            if request.path.startswith("/token"):
                return self.token(token=good["token"])
            if (
                request.path == "/v2/"
                or request.headers.get("authorization") == f"Bearer {good['token']}"
            ):
                return FOUND
            return Response(
                401, {"WWW-Authenticate": f'Bearer realm="http://{request.headers["host"]}/token"'}
            )

        with serve(answer) as web:
            adapter = client()
            assert adapter.digest(image(web)) == DIGEST
            good["token"] = "second"
            assert adapter.digest(image(web)) == DIGEST
            assert len(web.asked("GET", "/token")) == 2

    def test_token_that_is_not_accepted_is_a_permission_denied(self) -> None:
        assert type(self.error_of(self.token(token="bad"))) is PermissionDenied

    @pytest.mark.parametrize(
        "response", [HTML, token(), token(token=""), token(token="a\nb: c"), token(token=3)]
    )
    def test_token_server_without_a_token_is_an_error(self, response: Response) -> None:
        error = self.error_of(response)
        assert type(error) is TransientError
        assert "gives no token" in error.message

    def test_token_server_that_fails_is_unreachable(self) -> None:
        assert type(self.error_of(Response(500))) is ServiceUnreachable

    def test_token_server_may_limit_requests(self) -> None:
        error = self.error_of(Response(429, {"Retry-After": "9"}))
        assert isinstance(error, TransientError)
        assert error.retry_after == 9

    def test_token_server_that_refuses_is_a_permission_denied(self) -> None:
        assert type(self.error_of(refusal(401, "UNAUTHORIZED"))) is PermissionDenied

    @pytest.mark.parametrize(
        "challenge",
        [
            "Bearer service=s",
            'Bearer realm="ftp://x"',
            'Bearer realm="http://[x"',
            'Bearer realm="/t"',
        ],
    )
    def test_challenge_without_a_realm_is_an_error(self, challenge: str) -> None:
        error = self.error_of(HTML, challenge)
        assert type(error) is TransientError
        assert "asks for a token but not where to get it" in error.message

    @pytest.mark.parametrize("challenge", ["Negotiate", "nonsense", "Digest realm=x"])
    def test_unknown_way_to_log_in_is_a_permission_denied(self, challenge: str) -> None:
        error = self.error_of(HTML, challenge)
        assert type(error) is PermissionDenied
        assert "does not say how to log in" in error.message

    def test_identity_token_is_not_redirected_to_another_server(self) -> None:
        with serve(lambda _: self.token(access_token="good")) as other:
            error = self.error_of(
                Response(307, {"Location": f"http://{other.address}/"}),
                found=Credentials("", "", PASSWORD),
                insecure=frozenset({other.address}),
            )
            assert type(error) is OperatorError
            assert not other.requests


class TestConnections:
    def test_one_connection_serves_many_requests(self) -> None:
        with serve(answering(FOUND)) as web:
            adapter = client()
            for _ in range(20):
                adapter.digest(image(web))
            client().digest(image(web))
            assert len(web.requests) > 20
            assert len({r.port for r in web.requests}) == 1

    def test_answers_of_all_kinds_leave_the_connection_usable(self) -> None:
        with serve(answering(refusal(404, "NAME_UNKNOWN"))) as web:
            adapter = client()
            for _ in range(5):
                assert adapter.digest(image(web)) is None
            assert len({r.port for r in web.requests}) == 1

    def test_forked_child_opens_connections_of_its_own(self) -> None:
        # Of its own process, since a fork of this one would take the server's threads along.
        script = textwrap.dedent("""
            import os, sys
            from imagemill.reference import ImageReference
            from imagemill.registries.authorization import Login
            from imagemill.registries.oci import OciRegistry

            class Nobody:
                def login(self, repository):
                    return Login(None)

            image, registry = ImageReference.parse(sys.argv[1]), OciRegistry(Nobody())
            assert registry.digest(image.with_tag("parent"))
            child = os.fork()
            assert registry.digest(image.with_tag("parent" if child else "child"))
            if child:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                assert registry.digest(image.with_tag("parent"))
        """)
        with serve(answering(FOUND)) as web:
            subprocess.run([sys.executable, "-c", script, str(image(web))], check=True, timeout=60)
            parents = {r.port for r in web.asked("HEAD", "/parent")}
            children = {r.port for r in web.asked("HEAD", "/child")}
        assert len(web.asked("HEAD", "/parent")) == 3
        assert len(parents) == len(children) == 1
        assert parents.isdisjoint(children)

    def test_connection_that_ends_before_the_answer_is_tried_once_more(self) -> None:
        answers: list[Response | None] = [None, FOUND]
        with serve(lambda r: Response() if r.path == "/v2/" else answers.pop(0)) as web:
            assert client().digest(image(web)) == DIGEST
        assert not answers

    def test_answer_that_ends_too_early_is_an_error(self) -> None:
        cut = Response(
            200,
            {"Content-Type": MANIFEST_TYPES[0], "Content-Length": "1000", "Connection": "close"},
            b"{",
        )
        with (
            serve(answering(cut, head=Response(405))) as web,
            pytest.raises(ServiceUnreachable, match="breaks off"),
        ):
            client().digest(image(web))

    def test_server_that_always_hangs_up_is_unreachable(self) -> None:
        with (
            serve(lambda r: Response() if r.path == "/v2/" else None) as web,
            pytest.raises(
                ServiceUnreachable, match=f"{web.address} breaks off its answer"
            ) as raised,
        ):
            client().digest(image(web))
        assert raised.value.hint

    def test_silent_server_is_unreachable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http, "SILENCE_SECONDS", 0.2)
        done = threading.Event()

        def answer(request: Request) -> Response:
            if request.path != "/v2/":
                done.wait()
            return FOUND

        with serve(answer) as web:
            with pytest.raises(ServiceUnreachable, match="does not answer in time"):
                client().digest(image(web))
            done.set()

    def test_closed_port_is_unreachable(self) -> None:
        port = free_port()
        with pytest.raises(
            ServiceUnreachable, match=f"localhost:{port} cannot be reached: .*refused"
        ) as raised:
            client().digest(ImageReference.parse(f"localhost:{port}/a:v1"))
        assert "check that it runs" in raised.value.hint

    def test_unknown_host_is_unreachable(self) -> None:
        with pytest.raises(
            ServiceUnreachable, match=r"The name of registry\.invalid cannot be resolved"
        ):
            client().digest(ImageReference.parse("registry.invalid/a:v1"))

    def test_impossible_host_is_an_error_of_the_user(self) -> None:
        with pytest.raises(UserError, match="cannot be a host"):
            client().digest(ImageReference.parse(f"{'a' * 70}.io/a:v1"))


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate is among those that the system trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


class TestTls:
    @pytest.mark.usefixtures("trusted")
    def test_registry_with_a_trusted_certificate_is_asked_over_tls(
        self, tls: ssl.SSLContext
    ) -> None:
        with serve(answering(FOUND), tls) as web:
            assert client().digest(image(web)) == DIGEST

    def test_certificate_is_always_checked(self, tls: ssl.SSLContext) -> None:
        with serve(answering(FOUND), tls) as web:
            with pytest.raises(
                OperatorError, match=f"The certificate of {web.address} is not trusted"
            ) as raised:
                client().digest(image(web))
            assert "IMAGEMILL_AUTHORITIES" in raised.value.hint
            assert not web.requests

    def test_registry_without_tls_is_named_in_the_hint(self) -> None:
        with (
            serve(answering(FOUND)) as web,
            pytest.raises(OperatorError, match="does not speak TLS") as raised,
        ):
            http.request("GET", f"https://{web.address}/v2/", {})
        assert web.address in raised.value.hint

    def test_insecure_host_is_asked_without_tls_at_once(self) -> None:
        with serve(answering(FOUND)) as web:
            assert client(insecure=frozenset({web.address})).digest(image(web)) == DIGEST
            assert [r.method for r in web.requests] == ["HEAD"]

    @pytest.mark.usefixtures("trusted")
    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_upload_goes_where_a_redirect_might_and_no_further(
        self, tls: ssl.SSLContext, tmp_path: Path, scheme: str
    ) -> None:
        inside = serve(answering(FOUND), tls if scheme == "https" else None)
        with inside as other:
            begun = Response(202, {"Location": f"{scheme}://{other.address}/latest/meta-data"})
            with serve(answering(begun), tls) as web:
                blobs = blobs_for(web.address, DockerConfig(tmp_path))
                with pytest.raises(PermissionDenied):
                    blobs.push(image(web), DIGEST, io.BytesIO(MANIFEST), len(MANIFEST))
            assert other.requests == []

    @pytest.mark.usefixtures("trusted")
    def test_redirect_away_from_tls_is_not_followed(self, tls: ssl.SSLContext) -> None:
        with (
            serve(answering(FOUND)) as other,
            serve(answering(Response(307, {"Location": f"http://{other.address}/x"})), tls) as web,
        ):
            with pytest.raises(OperatorError, match=f"redirects to {other.address} without TLS"):
                client().digest(image(web))
            assert not other.requests


class TestMount:
    @pytest.mark.parametrize("status", [202, 400, 403, 404, 405])
    def test_a_registry_that_does_not_mount_is_to_be_sent_the_blob(
        self, status: int, tmp_path: Path
    ) -> None:
        with serve(answering(Response(status))) as web:
            blobs = blobs_for(web.address, DockerConfig(tmp_path))
            assert not blobs.mount(image(web), DIGEST, image(web))

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_one_that_is_busy_is_asked_again(self, status: int, tmp_path: Path) -> None:
        with serve(answering(Response(status))) as web:
            blobs = blobs_for(web.address, DockerConfig(tmp_path))
            with pytest.raises(ServiceUnreachable):
                blobs.mount(image(web), DIGEST, image(web))


class TestRepositoryThatIsNotThereYet:
    """Docker Hub and Quay let nobody read such a one, and whoever may push to it push."""

    @staticmethod
    def hub(pushers: frozenset[str], *, refuses_pull: bool = False) -> Application:
        """A registry with its token server: `pushers` are the logins that may push to `a/b`."""

        def answer(request: Request) -> Response:
            if request.path == "/v2/":
                return Response()
            if request.path.startswith("/token"):
                login = request.headers.get("authorization", "")
                known = login in ("", f"Basic {base64.b64encode(b'user:open-sesame').decode()}")
                scope = request.query["scope"][0]
                may = known and login in pushers and scope.endswith(":pull,push")
                if not known or (refuses_pull and not may):
                    return refusal(401 if not known else 403, "DENIED")
                return TestLogin.token(token="may-push" if may else "may-nothing")
            if request.headers.get("authorization") == "Bearer may-push":
                return refusal(404, "NAME_UNKNOWN")
            realm = f'Bearer realm="http://{request.headers["host"]}/token",service="s"'
            return refusal(401, "UNAUTHORIZED", {"WWW-Authenticate": realm})

        return answer

    OWN = frozenset({f"Basic {base64.b64encode(b'user:open-sesame').decode()}"})

    @pytest.mark.parametrize("refuses_pull", [False, True])
    def test_whoever_may_push_is_told_that_it_is_absent(self, refuses_pull: bool) -> None:
        with serve(self.hub(self.OWN, refuses_pull=refuses_pull)) as web:
            assert client(USER).digest(image(web)) is None
            scopes = [r.query["scope"] for r in web.asked("GET", "/token")]
        assert scopes[0] == ["repository:a/b:pull"]
        assert scopes[-1] == ["repository:a/b:pull,push"]

    @pytest.mark.parametrize("refuses_pull", [False, True])
    @pytest.mark.parametrize("found", [USER, Credentials("user", "wrong"), None])
    def test_whoever_may_not_push_is_denied_and_never_told_that_it_is_absent(
        self, found: Credentials | None, refuses_pull: bool
    ) -> None:
        with (
            serve(self.hub(frozenset(), refuses_pull=refuses_pull)) as web,
            pytest.raises(PermissionDenied, match="No permission to pull from"),
        ):
            client(found).digest(image(web))

    def test_nobody_asks_for_more_rights_than_pulling(self) -> None:
        with serve(self.hub(self.OWN)) as web:
            with pytest.raises(PermissionDenied):
                client(None).digest(image(web))
            asked = web.asked("GET", "/token")
        assert {r.query["scope"][0] for r in asked} == {"repository:a/b:pull"}

    def test_helper_that_could_not_be_asked_is_named_in_the_refusal(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"credsStore": "not-installed"}')
        with (
            serve(self.hub(frozenset())) as web,
            pytest.raises(PermissionDenied, match="docker-credential-not-installed cannot be run"),
        ):
            OciRegistry(DockerConfig(tmp_path)).digest(image(web))


def test_a_blob_is_mounted_with_a_token_for_both_repositories(tmp_path: Path) -> None:
    """Some registries, asked with one for the target alone, say that the blob is to be sent."""

    def answer(request: Request) -> Response:
        if request.path.startswith("/token"):
            scopes = request.query["scope"]
            return Response(200, {}, json.dumps({"token": "+".join(scopes)}).encode())
        token = request.headers.get("authorization", "")
        if "repository:a/b:pull,push" not in token:
            challenge = (
                f'Bearer realm="http://{web.address}/token",scope="repository:a/b:pull,push"'
            )
            return Response(401, {"WWW-Authenticate": challenge})
        if request.method == "HEAD":
            return Response(404)
        if request.method == "DELETE":
            return Response(204)
        location = {"Location": f"http://{web.address}/v2/a/b/blobs/uploads/1"}
        return Response(201 if "repository:other:pull" in token else 202, location)

    with serve(answer) as web:
        blobs = blobs_for(web.address, DockerConfig(tmp_path / "none"))
        assert not blobs.has(image(web), DIGEST)
        assert blobs.mount(image(web), DIGEST, ImageReference.parse(f"{web.address}/other"))
        assert not blobs.mount(image(web), DIGEST, ImageReference.parse(f"{web.address}/not"))
        (ended,) = web.asked("DELETE", "/uploads/1")
        assert "repository:not:pull" in ended.headers["authorization"]


def test_where_no_token_for_both_is_to_be_had_the_blob_is_to_be_sent(tmp_path: Path) -> None:
    def answer(request: Request) -> Response:
        if request.path.startswith("/token"):
            return Response(403, {}, b'{"errors": [{"code": "DENIED"}]}')
        return Response(401, {"WWW-Authenticate": f'Bearer realm="http://{web.address}/token"'})

    with serve(answer) as web:
        blobs = blobs_for(web.address, DockerConfig(tmp_path / "none"))
        assert not blobs.mount(image(web), DIGEST, ImageReference.parse(f"{web.address}/other"))
