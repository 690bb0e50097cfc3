"""Credentials from Docker's `config.json`, so that a worker needs no login of its own where Docker
has one.

The file is read each time it is asked, since credentials are rotated under a running worker. What
is in it and how it is looked up: https://docs.docker.com/reference/cli/docker/login/ and
`cli/config` of https://github.com/docker/cli; the protocol of credential helpers:
https://github.com/docker/docker-credential-helpers.
"""

import base64
import logging
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imagemill.encoding import json_value
from imagemill.errors import OperatorError
from imagemill.ports import Credentials
from imagemill.processes import others_environment
from imagemill.reference import DOCKER_HUB, ImageReference
from imagemill.registries.authorization import Login

log = logging.getLogger(__name__)

HELPER_TIMEOUT = 30.0
"""Seconds that a credential helper has for its answer."""

HUB_KEY = "https://index.docker.io/v1/"
"""What Docker Hub is called in docker's `config.json`."""

_OF_HOST = frozenset({"", "v1", "v2"})
"""Paths of keys that are of all of a host: versions of the API."""

_HUB_HOSTS = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_IDENTITY_TOKEN = (
    "<token>"  # the user name by which a helper says that its secret is an identity token
)
_NOT_FOUND = b"credentials not found in native keychain"


class HelperError(OperatorError):
    """A credential helper cannot be asked."""


class _Model(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)


class _Entry(_Model):
    """One of `auths`: `auth` is base64 of `username:password`; empty where a helper keeps the
    credentials.
    """

    auth: str | None = None
    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None
    registrytoken: str | None = None


class _File(_Model):
    """What we read of the file; Docker writes `null` for a table that is empty.

    Entries are looked into only where they are needed: others' faults keep nobody from building.
    """

    auths: dict[str, Any] | None = None
    helpers: dict[str, str | None] | None = Field(None, alias="credHelpers")
    store: str | None = Field(None, alias="credsStore")
    plugins: list[str] | None = Field(None, alias="cliPluginsExtraDirs")


class _Answer(_Model):
    """What a helper prints."""

    username: str = Field(alias="Username")
    secret: str = Field(alias="Secret")


@dataclass(frozen=True)
class DockerConfig:
    """The `config.json` in a folder, which need not exist.

    All methods raise `OperatorError` where the file cannot be used.
    """

    folder: Path

    def login(self, repository: ImageReference) -> Login:
        """Return what there is for a repository: under the longest key that is its path or a folder
        above it, then under its host; of each key the helper's before the file's own.

        A helper that cannot be asked is passed over, as docker does, and told as the login's fault.
        """
        config, faults = self._parsed(self._read()), []
        for place in _places(repository, config):
            try:
                found = _ask_helper(place.helper, place.keys[0]) if place.helper else None
            except HelperError as error:
                log.warning("%s", error)
                faults.append(error.message)
                found = None
            for key in place.keys:
                found = found or self._decoded(key, config)
            if found:
                return Login(found, "; ".join(faults))
        return Login(None, "; ".join(faults))

    def private_copy(
        self,
        host: str,
        credentials: Credentials | None,
        others: Iterable[ImageReference] = (),
    ) -> dict[str, Any]:
        """Return a `config.json` for a build's own folder, with the credentials of this build
        alone.

        That is these for `host`, and the worker's for the hosts of `others`, the images that it
        begins from; besides them the proxies, and where plugins of the CLI are. Nobody asks a
        helper any more. It holds secrets.
        """
        raw = self._read()
        logins = {each.registry: self.login(each).credentials for each in others}
        logins[host] = credentials
        copy = {"proxies": raw["proxies"]} if raw.get("proxies") else {}
        copy["auths"] = auths(logins)
        copy["cliPluginsExtraDirs"] = [
            *(self._parsed(raw).plugins or ()),
            str(self.folder.absolute() / "cli-plugins"),
        ]
        return copy

    @property
    def _path(self) -> Path:
        return self.folder / "config.json"

    def _read(self) -> Any:
        try:
            text = self._path.read_bytes()
            return (json_value(text) if text.strip() else None) or {}
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
            raise self._wrong(error) from None

    def _wrong(self, error: ValidationError, place: str = "") -> OperatorError:
        fault = error.errors(include_input=False)[0]
        where = ".".join(filter(None, (place, *map(str, fault["loc"])))) or "the file"
        return OperatorError(f"{self._path}: {where}: {fault['msg']}", "mend it, or log in again")

    def _decoded(self, key: str, config: _File) -> Credentials | None:
        """Return the credentials that the file itself has under a key."""
        try:
            entry = _Entry.model_validate((config.auths or {}).get(key) or {})
        except ValidationError as error:
            raise self._wrong(error, f"auths.{key}") from None
        username, password = entry.username or "", entry.password or ""
        if entry.auth:
            try:  # as Go does, which passes over line ends
                auth = entry.auth.replace("\r", "").replace("\n", "")
                pair = base64.b64decode(auth, validate=True).decode()
            except (ValueError, UnicodeDecodeError):
                pair = ""
            username, colon, password = pair.partition(":")
            if not (username and colon):
                raise OperatorError(
                    f"{self._path}: auths.{key}.auth is not base64 of username:password",
                    f"docker login {key}",
                )
        identity, registry = entry.identitytoken or "", entry.registrytoken or ""
        if not (username or identity or registry):
            return None
        return Credentials(username, password.strip("\0"), identity, registry_token=registry)


class _Place(NamedTuple):
    """Where there may be credentials: the keys that mean the same, and the helper to ask."""

    keys: Sequence[str]
    helper: str | None


def _places(repository: ImageReference, config: _File) -> Iterator[_Place]:
    """Where there may be credentials for a repository, the nearest first.

    Keys may be URLs, which older logins wrote: `https://HOST/v1/` means the host.
    """
    host, auths, helpers = repository.registry, config.auths or {}, config.helpers or {}
    names = _HUB_HOSTS if host in _HUB_HOSTS else {host}
    hosts = [HUB_KEY, *sorted(_HUB_HOSTS)] if host in _HUB_HOSTS else [host]
    folders = []
    for key in {**auths, **helpers}:
        name, _, path = key.rpartition("://")[2].strip("/").partition("/")
        if name in names and path in _OF_HOST:
            hosts.append(key)
        elif name in names and f"{repository.path}/".startswith(f"{path}/"):
            folders.append((-len(path), key))
    for _, key in sorted(folders):
        yield _Place([key], helpers.get(key, config.store) or None)
    helper = next((helpers[key] for key in hosts if key in helpers), config.store)
    yield _Place(hosts, helper or None)


def auths(logins: Mapping[str, Credentials | None]) -> dict[str, dict[str, str]]:
    """Return what a `config.json` has under `auths` for logins by their hosts, or by the folders
    of hosts that they are for. It holds secrets.
    """
    return {
        HUB_KEY if place in _HUB_HOSTS else place: _encoded(login)
        for place, login in logins.items()
        if login
    }


def _encoded(credentials: Credentials) -> dict[str, str]:
    pair = f"{credentials.username}:{credentials.password}"
    entry = {
        "auth": base64.b64encode(pair.encode()).decode(),
        "identitytoken": credentials.identity_token,
        "registrytoken": credentials.registry_token,
    }
    if not credentials.username:
        del entry["auth"]
    return {key: value for key, value in entry.items() if value}


def _ask_helper(name: str, server: str) -> Credentials | None:
    """Run `docker-credential-NAME get`; None if it has nothing for the server. Its output is not
    repeated: it may hold a secret.
    """
    program = f"docker-credential-{name}"
    hint = f"try `echo {server} | {program} get` as the user that Imagemill runs as"
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            env=others_environment(),
            capture_output=True,
            timeout=HELPER_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise HelperError(
            f"The credential helper {program} cannot be run: {error.strerror}",
            f"install {program}, or remove it from docker's config.json",
        ) from None
    except subprocess.TimeoutExpired:
        raise HelperError(
            f"The credential helper {program} gave no answer for {server} in {HELPER_TIMEOUT:.0f} s",
            hint,
        ) from None
    if done.returncode != 0:
        if done.stdout.strip() == _NOT_FOUND:
            return None
        raise HelperError(
            f"The credential helper {program} failed for {server}: exit code {done.returncode}",
            hint,
        )
    return _read_answer(done.stdout, program, hint)


def _read_answer(output: bytes, program: str, hint: str) -> Credentials | None:
    try:
        answer = _Answer.model_validate_json(output)
    except ValidationError:
        raise HelperError(f"The credential helper {program} gave no valid answer", hint) from None
    if not (answer.username or answer.secret):  # how some say that they have nothing
        return None
    if answer.username == _IDENTITY_TOKEN:
        return Credentials("", "", answer.secret)
    return Credentials(answer.username, answer.secret)
