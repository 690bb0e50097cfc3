"""Google's OAuth2 token endpoint and the metadata server of its machines, written from their
references.

https://developers.google.com/identity/protocols/oauth2/service-account#httprest (the grant, its
claims, the answers) and https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys
(the paths), with https://cloud.google.com/compute/docs/metadata/querying-metadata (the header,
without which nothing is answered).
"""

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

EMAIL = "builder@a-project.iam.gserviceaccount.com"
PROJECT = "a-project"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
KEY_ID = "the-key"

_AUDIENCE = "https://oauth2.googleapis.com/token"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ACCOUNT = "/computeMetadata/v1/instance/service-accounts/default/"


@dataclass
class GoogleServer:
    """Gives access tokens to the owner of a service account's key, and to whoever asks the metadata
    server.

    `lifetime` is that of the tokens it gives, in seconds; `account` whether the machine has a
    service account. The next answers of the token endpoint may be given as `failures`: status,
    headers, body.
    """

    address: str = ""
    lifetime: float = 3600
    account: bool = True
    failures: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """Method and path of all that it was asked."""
    _tokens: dict[str, float] = field(default_factory=dict)
    _key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    def reset(self) -> None:
        """As at the start: no failures, and no token is good any more."""
        self.lifetime, self.account = 3600, True
        for kept in (self.failures, self.requests, self._tokens):
            kept.clear()

    def key_file(self, key: rsa.RSAPrivateKey | None = None) -> dict[str, str]:
        """The content of the service account's key file, or of one with another's key in it."""
        private = (key or self._key).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": KEY_ID,
            "private_key": private.decode(),
            "client_email": EMAIL,
            "client_id": "1",
            "token_uri": f"http://{self.address}/token",
        }

    def accepts(self, token: str) -> bool:
        """Whether this is a token that was given and has not ended."""
        return self._tokens.get(token, 0) > time.time()

    def revoke(self) -> None:
        """No token that was given is good any more."""
        self._tokens.clear()

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and body."""
        self.requests.append(f"{method} {path}")
        if method == "POST" and path == "/token":
            return self.failures.pop(0) if self.failures else self._grant(parse_qs(body.decode()))
        if headers.get("metadata-flavor") != "Google":
            return _text(403, "Missing required header: Metadata-Flavor")
        return self._metadata(urlsplit(path).path)

    def _grant(self, form: dict[str, list[str]]) -> tuple[int, dict[str, str], str]:
        if form.get("grant_type") != [_GRANT]:
            return _json(
                400, {"error": "unsupported_grant_type", "error_description": "Invalid grant_type"}
            )
        try:
            claims = jwt.decode(
                form["assertion"][0],
                self._key.public_key(),
                ["RS256"],
                audience=_AUDIENCE,
                issuer=EMAIL,
                options={"require": ["iss", "aud", "exp", "iat"]},
            )
        except jwt.InvalidSignatureError:
            return _json(
                400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            )
        except jwt.InvalidTokenError as error:
            return _json(
                400, {"error": "invalid_grant", "error_description": f"Invalid JWT: {error}"}
            )
        if SCOPE not in claims.get("scope", "").split():
            return _json(
                400, {"error": "invalid_scope", "error_description": "Invalid OAuth scope"}
            )
        return _json(200, self._token())

    def _metadata(self, path: str) -> tuple[int, dict[str, str], str]:
        path = path.replace(f"/{EMAIL}/", "/default/")  # accounts have both names
        if path == "/":
            return _text(200, "computeMetadata/\n")
        if path == "/computeMetadata/v1/project/project-id":
            return _text(200, PROJECT)
        if path == _ACCOUNT and self.account:
            return _json(200, {"email": EMAIL, "scopes": [SCOPE], "aliases": ["default"]})
        if path == f"{_ACCOUNT}email" and self.account:
            return _text(200, EMAIL)
        if path == f"{_ACCOUNT}token" and self.account:
            return self.failures.pop(0) if self.failures else _json(200, self._token())
        return _text(404, "Not Found")

    def _token(self) -> dict[str, Any]:
        token = f"ya29.{secrets.token_urlsafe()}"
        self._tokens[token] = time.time() + self.lifetime
        return {"access_token": token, "expires_in": int(self.lifetime), "token_type": "Bearer"}


def _json(status: int, content: dict[str, Any]) -> tuple[int, dict[str, str], str]:
    return (
        status,
        {"Content-Type": "application/json", "Metadata-Flavor": "Google"},
        json.dumps(content),
    )


def _text(status: int, content: str) -> tuple[int, dict[str, str], str]:
    return status, {"Content-Type": "application/text", "Metadata-Flavor": "Google"}, content


@contextmanager
def google_server() -> Iterator[GoogleServer]:
    """Both servers, at one address, for the length of the block."""
    google = GoogleServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer is one packet

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = {name.lower(): value for name, value in self.headers.items()}
            status, headers, text = google.answer(self.command, self.path, asked, body)
            self.send_response_only(status)
            for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = answer  # noqa: N815

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        google.address = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield google
        finally:
            server.shutdown()
            thread.join()
