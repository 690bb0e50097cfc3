"""A token server as the distribution project specifies it, whose tokens a real registry checks.

https://distribution.github.io/distribution/spec/auth/token/, …/jwt/ and …/oauth/. It has an account
that may do everything, one that may only read, and lets everybody read what is below `public/`.
"""

import base64
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from certificates import new_key, write_certificate
from web import Request, Response, Web, serve

SERVICE = "registry of the tests"  # the space must survive the challenge
ISSUER = "token-server"
PASSWORDS = {"writer": "write:me", "reader": "read-me"}
IDENTITY_TOKENS = {"identity-of-writer": "writer"}


@dataclass
class TokenServer:
    """Signs tokens for whoever asks rightly; `expires_in` is what it says of their lifetime, in
    seconds.
    """

    certificate: Path
    expires_in: int | None = 300
    web: Web = field(init=False)
    _key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    def registry_auth(self) -> dict[str, str]:
        """The parameters of `auth.token` in a registry's config."""
        return {
            "realm": f"http://{self.web.address}/token",
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(self.certificate),
        }

    def token(self, user: str, scopes: list[str]) -> str:
        """A token for what the user may do of these scopes."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "exp": now + max(300, self.expires_in or 0),
            "nbf": now - 5,
            "iat": now,
        }
        access = [granted for scope in scopes if (granted := _granted(user, scope))]
        der = x509.load_pem_x509_certificate(self.certificate.read_bytes()).public_bytes(
            Encoding.DER
        )
        headers = {"x5c": [base64.b64encode(der).decode()]}
        return jwt.encode(
            {**claims, "jti": uuid.uuid4().hex, "access": access}, self._key, "ES256", headers
        )

    def write_certificate(self) -> None:
        """The certificate of the key that signs, signed by itself."""
        write_certificate(self.certificate, self._key, ISSUER)

    def answer(self, request: Request) -> Response:
        if request.method == "POST":
            user = _user_of_identity_token(request)
            scopes = request.form.get("scope", [""])[0].split()
            name = "access_token"
        else:
            user = _user_of_password(request)
            scopes = request.query.get("scope", [])
            name = "token"
        if user is None:
            error = {
                "errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]
            }
            return Response(401, {"Content-Type": "application/json"}, json.dumps(error).encode())
        answer: dict[str, object] = {name: self.token(user, scopes)}
        if self.expires_in is not None:
            answer["expires_in"] = self.expires_in
        return Response(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())


@contextmanager
def token_server(folder: Path) -> Iterator[TokenServer]:
    """A token server for the length of the block."""
    server = TokenServer(folder / "tokens.pem")
    server.write_certificate()
    with serve(server.answer) as server.web:
        yield server


def _granted(user: str, scope: str) -> dict[str, object] | None:
    kind, name, actions = scope.split(":")
    allowed = {"writer": {"pull", "push"}, "reader": {"pull"}}.get(user, set())
    if name.startswith("public/"):
        allowed = allowed | {"pull"}
    granted = sorted(allowed.intersection(actions.split(",")))
    return {"type": kind, "name": name, "actions": granted} if granted else None


def _user_of_password(request: Request) -> str | None:
    """The user's name; empty for a request without credentials, None for wrong ones or another
    registry's service.
    """
    if request.query.get("service") != [SERVICE]:
        return None
    header = request.headers.get("authorization")
    if header is None:
        return ""
    user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
    return user if PASSWORDS.get(user) == password else None


def _user_of_identity_token(request: Request) -> str | None:
    form = {name: values[0] for name, values in request.form.items()}
    complete = (
        form.get("grant_type") == "refresh_token"
        and form.get("service") == SERVICE
        and form.get("client_id")
    )
    return IDENTITY_TOKENS.get(form.get("refresh_token", "")) if complete else None
