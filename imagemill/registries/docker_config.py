"""Credentials from Docker's `config.json`, so that a worker needs no login of its own where Docker
has one.

The file is read each time it is asked, since credentials are rotated under a running worker. What
is in it and how it is looked up: https://docs.docker.com/reference/cli/docker/login/ and
`cli/config` of https://github.com/docker/cli; the protocol of credential helpers:
https://github.com/docker/docker-credential-helpers.
"""

import base64
import binascii
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imagemill.errors import OperatorError
from imagemill.ports import Credentials
from imagemill.reference import DOCKER_HUB

HELPER_TIMEOUT = 30.0
"""Seconds that a credential helper has for its answer."""

_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_IDENTITY_TOKEN = (
    "<token>"  # the user name by which a helper says that its secret is an identity token
)
_NOT_FOUND = b"credentials not found in native keychain"


class _Model(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)


class _Entry(_Model):
    """One of `auths`: `auth` is base64 of `username:password`; empty where a helper keeps the
    credentials.
    """

    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _File(_Model):
    """What we read of the file; Docker writes `null` for a table that is empty."""

    auths: dict[str, _Entry] | None = None
    helpers: dict[str, str] | None = Field(None, alias="credHelpers")
    store: str | None = Field(None, alias="credsStore")
    plugins: list[str] | None = Field(None, alias="cliPluginsExtraDirs")


class _Answer(_Model):
    """What a helper prints."""

    username: str = Field(alias="Username")
    secret: str = Field(alias="Secret")


@dataclass(frozen=True)
class DockerConfig:
    """The `config.json` in a folder, which need not exist.

    All methods raise `OperatorError` where the file, or a helper that it names, cannot be used.
    """

    folder: Path

    def credentials(self, host: str) -> Credentials | None:
        """Credentials for a registry's host (with its port), of its helper, the common store or the
        file.
        """
        config = self._parsed(self._read())
        keys = _keys(host)
        helpers = config.helpers or {}
        helper = next((helpers[key] for key in keys if key in helpers), config.store)
        if helper and (found := _ask_helper(helper, keys[0])):
            return found
        for key, entry in _matching(config.auths or {}, keys):
            if found := self._decoded(key, entry):
                return found
        return None

    def private_copy(self, host: str, credentials: Credentials | None) -> dict[str, Any]:
        """A `config.json` for a build's own folder: what a build needs of this one, and these
        credentials for `host`.

        That is all credentials and helpers, the proxies, and where plugins of the CLI are. It holds
        secrets.
        """
        raw = self._read()
        config = self._parsed(raw)
        copy = {
            key: raw[key]
            for key in ("auths", "credHelpers", "credsStore", "proxies")
            if raw.get(key)
        }
        copy["cliPluginsExtraDirs"] = [
            *(config.plugins or ()),
            str(self.folder.absolute() / "cli-plugins"),
        ]
        if credentials:
            key = _keys(host)[0]
            copy["auths"] = {**copy.get("auths", {}), key: _encoded(credentials)}
            # An empty helper makes the CLI look into the file, whatever the common store is.
            copy["credHelpers"] = {**copy.get("credHelpers", {}), key: ""}
        return copy

    @property
    def _path(self) -> Path:
        return self.folder / "config.json"

    def _read(self) -> Any:
        try:
            return json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
            raise OperatorError(
                f"{self._path} cannot be read: {reason}", "docker must be able to read it too"
            ) from None

    def _parsed(self, raw: Any) -> _File:
        try:
            return _File.model_validate(raw)
        except ValidationError as error:
            fault = error.errors(include_input=False)[0]
            where = ".".join(map(str, fault["loc"])) or "the file"
            raise OperatorError(
                f"{self._path}: {where}: {fault['msg']}", "mend it, or log in again"
            ) from None

    def _decoded(self, key: str, entry: _Entry) -> Credentials | None:
        username, password = entry.username, entry.password
        if entry.auth:
            try:
                username, _, password = (
                    base64.b64decode(entry.auth, validate=True).decode().partition(":")
                )
            except (binascii.Error, UnicodeDecodeError):
                username = ""
            if not username:
                raise OperatorError(
                    f"{self._path}: auths.{key}.auth is not base64 of username:password",
                    f"docker login {key}",
                )
        if not (username or entry.identitytoken):
            return None
        return Credentials(username, password.strip("\0"), entry.identitytoken)


def _keys(host: str) -> tuple[str, ...]:
    """The keys that Docker uses for a registry, its own choice first."""
    return (_HUB_KEY, *sorted(_HUB_HOSTS)) if host in _HUB_HOSTS else (host,)


def _matching(auths: dict[str, _Entry], keys: tuple[str, ...]) -> Iterator[tuple[str, _Entry]]:
    """Entries under these keys themselves, then those under URLs of the same hosts, which older
    logins wrote.
    """
    yield from ((key, auths[key]) for key in keys if key in auths)
    yield from (
        (key, entry) for key, entry in auths.items() if key not in keys and _host_of(key) in keys
    )


def _host_of(key: str) -> str:
    return key.rpartition("://")[2].partition("/")[0]


def _encoded(credentials: Credentials) -> dict[str, str]:
    pair = f"{credentials.username}:{credentials.password}"
    entry = {
        "auth": base64.b64encode(pair.encode()).decode(),
        "identitytoken": credentials.identity_token,
    }
    if not credentials.username:
        del entry["auth"]
    return {key: value for key, value in entry.items() if value}


def _ask_helper(name: str, server: str) -> Credentials | None:
    """Run `docker-credential-NAME get`; None if it has nothing for the server. Its output is not
    repeated: it may hold a secret.
    """
    program = f"docker-credential-{name}"
    hint = f"try `echo {server} | {program} get` as the user that the worker runs as"
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            timeout=HELPER_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise OperatorError(
            f"The credential helper {program} cannot be run: {error.strerror}",
            f"install {program}, or remove it from docker's config.json",
        ) from None
    except subprocess.TimeoutExpired:
        raise OperatorError(
            f"The credential helper {program} gave no answer for {server} in {HELPER_TIMEOUT:.0f} s",
            hint,
        ) from None
    if done.returncode != 0:
        if done.stdout.strip() == _NOT_FOUND:
            return None
        raise OperatorError(
            f"The credential helper {program} failed for {server}: exit code {done.returncode}",
            hint,
        )
    return _read_answer(done.stdout, program, hint)


def _read_answer(output: bytes, program: str, hint: str) -> Credentials | None:
    try:
        answer = _Answer.model_validate_json(output)
    except ValidationError:
        raise OperatorError(f"The credential helper {program} gave no valid answer", hint) from None
    if not (answer.username or answer.secret):  # how some say that they have nothing
        return None
    if answer.username == _IDENTITY_TOKEN:
        return Credentials("", "", answer.secret)
    return Credentials(answer.username, answer.secret)
