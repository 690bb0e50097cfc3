"""Azure's servers of tokens, as far as its SDK and ACR's clients ask them, written from Microsoft's
references.

Microsoft Entra ID
(https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow), a virtual
machine's metadata
(https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token),
and what an Azure container registry has beside the distribution API
(https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md,
https://learn.microsoft.com/rest/api/containerregistry/tag).
"""

import base64
import http.client
import json
import shutil
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from certificates import new_key, write_certificate

ENTRA = "login.microsoftonline.com"
TENANT = "409520d4-8100-4d1d-ad47-72432ddcc120"
CLIENT = "11111111-2222-3333-4444-555555555555"
SECRET = "secret-of-the-client"
FEDERATED_TOKEN = "token-of-the-service-account"
OBJECT = "99999999-8888-7777-6666-555555555555"
"""The id of the object that the client is in the tenant."""

MACHINE = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
"""The object id of the machine's managed identity."""

NOBODY = "00000000-0000-0000-0000-000000000000"
"""The user name that goes with an ACR refresh token."""

_KEY = "the key that signs tokens, which nobody but their own server checks"
_TYPE = {"Content-Type": "application/json; charset=utf-8"}


# --- A small server ---


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    """Path and query."""
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def fields(self) -> dict[str, list[str]]:
        """The query's parameters, and those of a form."""
        form = self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        return parse_qs(urlsplit(self.target).query) | (
            parse_qs(self.body.decode()) if form else {}
        )

    def field(self, name: str) -> str:
        return self.fields.get(name, [""])[0]


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes


def _json(status: int, answer: Mapping[str, Any], **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, _TYPE | named, json.dumps(answer).encode())


@contextmanager
def _serve(
    answer: Callable[[Request], Response], tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Serve on a free port of 127.0.0.1, which is given, for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            response = answer(Request(self.command, self.path, headers, body))
            self.send_response_only(response.status)
            for name, value in {
                "Content-Length": str(len(response.body)),
                **response.headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else response.body)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Clients that break off are part of the tests."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


# --- Microsoft Entra ID, and the metadata of a virtual machine ---


@dataclass
class Entra:
    """One tenant with one client, which has a secret and a federated credential, and one machine
    with an identity.
    """

    port: int = 0
    lifetime: int = 3600
    """Seconds that tokens live."""
    requests: list[Request] = field(default_factory=list)
    fault: Response | None = None
    """The answer to each request for a token, if it is set."""
    machine: bool = True
    """Whether the machine has an identity."""

    def asked(self, path: str) -> list[Request]:
        """The requests whose path ends with this."""
        return [request for request in self.requests if request.path.endswith(path)]

    def token(self, holder: str, audience: str, lifetime: int | None = None) -> str:
        """An access token
        (https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference).
        """
        now = int(time.time())
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{TENANT}/",
            "tid": TENANT,
            "oid": holder,
        }
        times = {
            "iat": now - 5,
            "nbf": now - 5,
            "exp": now + (self.lifetime if lifetime is None else lifetime),
        }
        return jwt.encode({**claims, "appid": CLIENT, "sub": holder, **times}, _KEY, "HS256")

    def answer(self, request: Request) -> Response:
        self.requests.append(request)
        if request.path == "/common/discovery/instance":
            return _json(200, {"tenant_discovery_endpoint": _openid_url(), "metadata": [_INSTANCE]})
        if request.path == f"/{TENANT}/v2.0/.well-known/openid-configuration":
            return _json(200, _openid())
        if request.path == f"/{TENANT}/oauth2/v2.0/token" and request.method == "POST":
            return self.fault or self._grant(request)
        if request.path == "/metadata/identity/oauth2/token":
            return self.fault or self._of_machine(request)
        return _json(400, _refusal("invalid_tenant", "AADSTS90002: Tenant not found."))

    def _grant(self, request: Request) -> Response:
        asked = request.field
        resource, suffix = asked("scope").rpartition("/")[::2]
        if asked("grant_type") != "client_credentials" or suffix != ".default":
            return _json(
                400, _refusal("invalid_request", "AADSTS900144: The request body is wrong.")
            )
        if asked("client_id") != CLIENT:
            words = "AADSTS700016: Application with identifier was not found in the directory."
            return _json(400, _refusal("unauthorized_client", words))
        federated = (
            asked("client_assertion_type")
            == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        )
        if asked("client_secret") != SECRET and not (
            federated and asked("client_assertion") == FEDERATED_TOKEN
        ):
            words = "AADSTS7000215: Invalid client secret provided. Ensure it is the secret value, not its id."
            return _json(401, _refusal("invalid_client", words))
        return _json(200, self._granted(OBJECT, resource))

    def _of_machine(self, request: Request) -> Response:
        if request.headers.get("metadata") != "true":
            return _json(
                400,
                {
                    "error": "invalid_request",
                    "error_description": "Required metadata header missing",
                },
            )
        if not self.machine:
            return _json(
                400, {"error": "invalid_request", "error_description": "Identity not found"}
            )
        granted = self._granted(MACHINE, request.field("resource"))
        numbers = {
            name: str(value) if isinstance(value, int) else value for name, value in granted.items()
        }
        return _json(200, numbers | {"resource": request.field("resource"), "client_id": CLIENT})

    def _granted(self, holder: str, resource: str) -> dict[str, Any]:
        times = {"expires_in": self.lifetime, "ext_expires_in": self.lifetime}
        return {"token_type": "Bearer", **times, "access_token": self.token(holder, resource)}


@contextmanager
def entra(tls: ssl.SSLContext | None) -> Iterator[Entra]:
    """Microsoft Entra ID if there is TLS, else the metadata of a machine, for the length of the
    block.
    """
    server = Entra()
    with _serve(server.answer, tls) as server.port:
        yield server


_INSTANCE = {"preferred_network": ENTRA, "preferred_cache": ENTRA, "aliases": [ENTRA]}


def _openid_url() -> str:
    return f"https://{ENTRA}/{TENANT}/v2.0/.well-known/openid-configuration"


def _openid() -> dict[str, Any]:
    base = f"https://{ENTRA}/{TENANT}"
    endpoints = {
        f"{name}_endpoint": f"{base}/oauth2/v2.0/{path}" for name, path in _ENDPOINTS.items()
    }
    return {"issuer": f"{base}/v2.0", **endpoints}


_ENDPOINTS = {"authorization": "authorize", "token": "token", "device_authorization": "devicecode"}


def _refusal(code: str, words: str) -> dict[str, Any]:
    trace = f"Trace ID: {uuid.uuid4()} Correlation ID: {uuid.uuid4()}"
    return {"error": code, "error_description": f"{words} {trace}", "error_codes": []}


# --- An Azure container registry ---


@dataclass
class Acr:
    """What Azure has in front of a registry, at `address`; `rights` are what each object id may do
    there.

    `register` says where the registry itself is and in which folder it keeps its data.
    """

    certificate: Path
    rights: dict[str, set[str]] = field(default_factory=dict)
    lifetime: int = 3 * 60 * 60
    """Seconds that refresh tokens live."""
    address: str = ""
    requests: list[Request] = field(default_factory=list)
    fault: Response | None = None
    """The answer to each exchange of a token, if it is set."""
    _registry: str = ""
    _folder: Path = Path()
    _key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    def registry_auth(self) -> dict[str, str]:
        """The parameters of `auth.token` in the registry's config."""
        realm = f"http://{self.address}/oauth2/token"
        issuer = {"issuer": "Azure Container Registry", "rootcertbundle": str(self.certificate)}
        return {"realm": realm, "service": self.address, **issuer}

    def register(self, address: str, folder: Path) -> None:
        self._registry, self._folder = address, folder

    def asked(self, path: str) -> list[Request]:
        """The requests whose path ends with this."""
        return [request for request in self.requests if request.path.endswith(path)]

    def answer(self, request: Request) -> Response:
        self.requests.append(request)
        if request.path == "/oauth2/exchange" and request.method == "POST":
            return self.fault or self._exchange(request)
        if request.path == "/oauth2/token":
            return self._token(request)
        if request.path.startswith("/acr/v1/") and request.method == "DELETE":
            return self._untag(request)
        return self._forward(request)

    def _exchange(self, request: Request) -> Response:
        asked = request.field
        known = asked("grant_type") == "access_token" and asked("service") == self.address
        try:
            claims = jwt.decode(
                asked("access_token"),
                _KEY,
                ["HS256"],
                audience="https://containerregistry.azure.net",
            )
        except jwt.PyJWTError:
            known = False
        if not known or asked("tenant") not in ("", TENANT) or not self.rights.get(claims["oid"]):
            return _unauthorized()
        return _json(
            200,
            {
                "refresh_token": self._signed(
                    claims["oid"], self.lifetime, grant_type="refresh_token"
                )
            },
        )

    def _token(self, request: Request) -> Response:
        if request.method == "POST" and request.field("grant_type") == "refresh_token":
            refresh = request.field("refresh_token")
        else:
            basic = request.headers.get("authorization", "").removeprefix("Basic ")
            user, _, refresh = base64.b64decode(basic).decode().partition(":")
            refresh = refresh if user == NOBODY else ""
        holder = self._holder(refresh, "refresh_token")
        if holder is None or request.field("service") != self.address:
            return _unauthorized()
        scopes = [scope for value in request.fields.get("scope", []) for scope in value.split()]
        access = [granted for scope in scopes if (granted := self._granted(holder, scope))]
        return _json(
            200,
            {"access_token": self._signed(holder, 4500, grant_type="access_token", access=access)},
        )

    def _granted(self, holder: str, scope: str) -> dict[str, Any] | None:
        kind, name, actions = scope.split(":")
        granted = sorted(self.rights.get(holder, set()).intersection(actions.split(",")))
        return {"type": kind, "name": name, "actions": granted} if granted else None

    def _untag(self, request: Request) -> Response:
        name, tag = request.path.removeprefix("/acr/v1/").split("/_tags/")
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        wanted = {"type": "repository", "name": name, "actions": ["delete"]}
        if (
            self._holder(token, "access_token") is None
            or wanted not in self._claims(token)["access"]
        ):
            return _unauthorized()
        link = self._folder / "docker/registry/v2/repositories" / name / "_manifests/tags" / tag
        if not link.exists():
            words = "the specified tag does not exist"
            return _json(
                404,
                {"errors": [{"code": "TAG_UNKNOWN", "message": words, "detail": {"name": tag}}]},
            )
        shutil.rmtree(link)
        return Response(202, {}, b"")

    def _forward(self, request: Request) -> Response:
        """Hand the request on to the registry, which goes by the name of its front."""
        with closing(http.client.HTTPConnection(self._registry, timeout=30)) as connection:
            headers = {
                name: value for name, value in request.headers.items() if name != "connection"
            }
            connection.request(request.method, request.target, request.body, headers)
            answer = connection.getresponse()
            kept = {
                name: value
                for name, value in answer.getheaders()
                if name.lower() != "transfer-encoding"
            }
            return Response(answer.status, kept, answer.read())

    def _signed(self, holder: str, lifetime: int, **claims: object) -> str:
        now = int(time.time())
        who = {
            "iss": "Azure Container Registry",
            "sub": holder,
            "aud": self.address,
            "jti": uuid.uuid4().hex,
        }
        der = x509.load_pem_x509_certificate(self.certificate.read_bytes()).public_bytes(
            Encoding.DER
        )
        times = {"iat": now, "nbf": now - 5, "exp": now + lifetime}
        return jwt.encode(
            {**who, **times, **claims},
            self._key,
            "ES256",
            {"x5c": [base64.b64encode(der).decode()]},
        )

    def _claims(self, token: str) -> dict[str, Any]:
        found: dict[str, Any] = jwt.decode(
            token, self._key.public_key(), ["ES256"], audience=self.address
        )
        return found

    def _holder(self, token: str, kind: str) -> str | None:
        """Whose token it is, if it is one of ours, of this kind and still valid."""
        try:
            claims = self._claims(token)
        except jwt.PyJWTError:
            return None
        return str(claims["sub"]) if claims["grant_type"] == kind else None


@contextmanager
def acr(folder: Path) -> Iterator[Acr]:
    """The front of a registry for the length of the block."""
    front = Acr(folder / "acr.pem")
    write_certificate(front.certificate, front._key, "acr")
    with _serve(front.answer) as port:
        front.address = f"127.0.0.1:{port}"
        yield front


def _unauthorized() -> Response:
    words = "authentication required, visit https://aka.ms/acr/authorization for more information."
    return _json(401, {"errors": [{"code": "UNAUTHORIZED", "message": words, "detail": None}]})
