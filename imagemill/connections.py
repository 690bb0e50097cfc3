"""The URLs of broker and result backend: one reading for client, worker and command line.

Celery, kombu and redis-py read a URL each in its own way. What passes here means the same to all
three; the rest is refused in words, which never repeat the URL, since it may hold a password.
"""

import re
from difflib import get_close_matches
from inspect import signature
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from imagemill.errors import UserError

REDIS = ("redis", "rediss", "redis+socket")
AMQP = ("amqp", "amqps")

BROKER_FORMS = "redis://HOST:6379/0, rediss://…, amqp://USER:PASSWORD@HOST:5672/ or amqps://…"
BACKEND_FORMS = "redis://HOST:6379/0 or rediss://…"

_CERT_REQS = "ssl_cert_reqs"
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SEVERAL_SERVERS = {"sentinel": "Sentinel", "cluster": "Cluster"}


def broker_url(url: str | None) -> str:
    """Return the broker's URL as Celery wants it; `UserError` if it is none, or cannot be read."""
    if not url or not url.strip():
        raise UserError(
            "No broker is given", f"write {BROKER_FORMS} as broker, or into IMAGEMILL_BROKER"
        )
    return _read("broker", url, (*REDIS, *AMQP), BROKER_FORMS)


def backend_url(url: str | None, broker: str) -> str:
    """Return the result backend's URL, by default the broker's; `UserError` if that is no Redis, or
    cannot be read.
    """
    if not url and broker.startswith(AMQP):
        raise UserError(
            "Results are kept in Redis", "give its URL as backend, or set IMAGEMILL_BACKEND"
        )
    return _read("backend", url or broker, REDIS, BACKEND_FORMS)


def tls_options(broker: str) -> dict[str, Any]:
    """Return Celery's settings by which the certificate of an `amqps://` broker has to be for its
    host: py-amqp by itself only wants one for whomever, from an authority that is trusted.
    """
    # Kombu puts in the name of the host.
    return {"broker_use_ssl": {"server_hostname": None}} if broker.startswith("amqps:") else {}


def _read(what: str, url: str, schemes: tuple[str, ...], forms: str) -> str:
    url = url.strip()
    hint = f"write {forms} as {what}, or into IMAGEMILL_{what.upper()}"
    _check_scheme(what, url, schemes, hint)
    try:
        parts = urlsplit(url)
        _check(parts)
        if parts.scheme in REDIS and parts.query:
            _check_query(parts)
    except ValueError as error:
        # urlsplit's own errors quote parts of the URL.
        reason = str(error) if isinstance(error, _UnreadableError) else "it is no URL"
        raise UserError(
            f"The {what}'s URL cannot be read: {reason}",
            "in its name and password, write / as %2F, @ as %40, # as %23, ? as %3F, % as %25, [ as %5B",
        ) from None
    return _verified(parts) if parts.scheme == "rediss" else url


class _UnreadableError(ValueError):
    """What is wrong with a URL, in words that repeat nothing of it."""


def _check_scheme(what: str, url: str, schemes: tuple[str, ...], hint: str) -> None:
    """Kombu takes a URL without a scheme for the name of a transport."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise UserError(f"The {what}'s URL has no scheme", hint)
    if scheme in schemes:
        return
    for word, name in _SEVERAL_SERVERS.items():
        if word in scheme.lower():
            raise UserError(
                f"The {what} cannot be a Redis {name}",
                f"give the URL of one Redis, such as the address that follows a {name}'s primary: {forms_of(what)}"
                if word == "sentinel"
                else f"give the URL of one Redis, which is no {name}: {forms_of(what)}",
            )
    if what == "backend" and scheme in AMQP:
        raise UserError("Results are kept in Redis", hint)
    near = get_close_matches(scheme.lower(), schemes, n=1)
    guess = f"did you mean {near[0]}://? " if near else ""
    raise UserError(f"The {what} cannot be of the kind {scheme[:20]}://", guess + hint)


def forms_of(what: str) -> str:
    """Return how the URL of the broker, or of the backend, is written."""
    return BROKER_FORMS if what == "broker" else BACKEND_FORMS


def _check(parts: SplitResult) -> None:
    """Raise `_UnreadableError`, or urllib's `ValueError`, if something in a URL is not where it belongs:
    a password that is not percent-encoded most often.
    """
    if _BARE_PERCENT.search(parts.netloc + parts.path):
        raise _UnreadableError("there is a % that encodes nothing")
    if parts.fragment or "#" in parts.geturl():
        raise _UnreadableError("there is a # in it")
    if parts.netloc.count("@") > 1 or "@" in parts.path + parts.query:
        raise _UnreadableError("there is an @ too many")
    if any(ord(character) <= 32 for character in parts.geturl()):
        raise _UnreadableError("there is a blank in it")
    if parts.scheme == "redis+socket":
        return
    if parts.port is None and parts.netloc.rpartition("@")[2].endswith(":"):
        raise _UnreadableError("there is no port after the :")
    if not parts.hostname and (parts.netloc or parts.scheme == "rediss"):
        raise _UnreadableError("there is no host in it")
    database = parts.path.strip("/")
    if parts.scheme in REDIS and database and not database.isdecimal():
        raise _UnreadableError("behind the host belongs the number of a database")


def _check_query(parts: SplitResult) -> None:
    """Raise `_UnreadableError` for what redis-py takes no option for, or not with that value."""
    from redis import connection as redis  # few URLs have options

    kinds = {"redis": redis.Connection, "rediss": redis.SSLConnection}
    kind: type = kinds.get(parts.scheme, redis.UnixDomainSocketConnection)
    known = {"max_connections", "virtual_host"}.union(
        *(
            signature(vars(each)["__init__"]).parameters
            for each in kind.__mro__
            if "__init__" in vars(each) and each is not object
        )
    )
    for name, _ in parse_qsl(parts.query):
        if name not in known:
            near = get_close_matches(name.lower(), known, n=1)
            guess = f": did you mean {near[0]}?" if near else ""
            raise _UnreadableError(f"there is no such option in a {parts.scheme}:// URL{guess}")
    if parts.scheme in kinds:
        try:
            redis.parse_url(parts.geturl())  # type: ignore[no-untyped-call]
        except ValueError:
            raise _UnreadableError("an option has a value that it cannot have") from None


def _verified(parts: SplitResult) -> str:
    """Return a URL by which all three verify the server's certificate, unless it says otherwise, in
    the one spelling that they share.
    """
    query = dict(parse_qsl(parts.query))
    wanted = query.get(_CERT_REQS, "required").lower().removeprefix("cert_")
    if wanted not in ("required", "optional", "none"):
        raise UserError(
            f"{_CERT_REQS} in a rediss:// URL is required, optional or none",
            "leave it out: certificates are verified then",
        )
    return parts._replace(query=urlencode({**query, _CERT_REQS: wanted}, safe="/")).geturl()
