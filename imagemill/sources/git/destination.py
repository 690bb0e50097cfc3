"""Where git is sent by http: to addresses that were looked at, and nowhere by itself.

Git follows redirects to any host and looks names up itself. So it is told to follow none, and which
addresses its host has; where a server has moved a repository we find out ourselves, by the rules of
archives.
"""

import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from imagemill import http
from imagemill.errors import ServiceUnreachable, UserError
from imagemill.place import machine
from imagemill.proxies import proxy_for
from imagemill.sources.git.url import Remote
from imagemill.sources.host_credentials import token_line
from imagemill.sources.options import SourceOptions
from imagemill.sources.reach import reach

BY_HTTP = frozenset({"https", "http"})
_QUERY = "/info/refs?service=git-upload-pack"
_KNOWN_HOSTS = (Path.home() / ".ssh/known_hosts", Path("/etc/ssh/ssh_known_hosts"))
_PORTS = {"https": 443, "http": 80}


def pinned(remote: Remote, options: SourceOptions) -> str:
    """Return git's `http.curloptResolve` for the remote's host; empty if a proxy looks it up.

    `PermissionDenied` if the worker may not connect to it, `ServiceUnreachable` if it has no
    address.
    """
    host, port = remote.host.strip("[]"), remote.port or _PORTS[remote.scheme]
    allowed = reach(options, _named(remote, options))
    if proxy_for(remote.scheme, host, port, options.environment):
        allowed.check_written(remote.host, port)
        return ""
    try:
        addresses = allowed.addresses(remote.host, port)
    except OSError as error:
        if options.git_config:  # it may name a proxy, which looks the name up
            return ""
        raise ServiceUnreachable(
            f"The name of {host} cannot be resolved: {error.strerror}",
            f"check its spelling, and the name servers and the proxy of {machine()}",
            refused=True,
        ) from None
    texts = (f"[{each}]" if each.version == 6 else str(each) for each in addresses)
    return f"{remote.host}:{port}:{','.join(texts)}"


def check_ssh(remote: Remote, options: SourceOptions) -> None:
    """Raise `PermissionDenied` for a server at an address that is not public, unless the operator
    knows its key: another one would be refused by its key, but asked first.
    """
    if options.attended or _knows(remote, options):
        return
    with suppress(OSError):  # a name that only the operator's own ssh config knows
        reach(options, _named(remote, options)).addresses(remote.host, remote.port or 22)


def _knows(remote: Remote, options: SourceOptions) -> bool:
    """Whether a file of known hosts has a key of the server."""
    name = f"[{remote.host}]:{remote.port}" if remote.port else remote.host
    files = [options.known_hosts] if options.known_hosts else _KNOWN_HOSTS
    asked = (["ssh-keygen", "-F", name, "-f", str(file)] for file in files if file.exists())
    return any(subprocess.run(each, capture_output=True).returncode == 0 for each in asked)


def followed(remote: Remote, options: SourceOptions, login: Mapping[str, str]) -> Remote:
    """Return where the server says that the repository is; `UserError` if it does not."""
    allowed = reach(options, _named(remote, options))
    with http.opened("GET", f"{remote}{_QUERY}", login, reach=allowed) as reply:
        found = reply.url
    parts = urlsplit(found)
    if parts.scheme != remote.scheme:
        raise UserError(
            f"{remote} leads to a transport that is refused: {parts.scheme}",
            "name the repository itself",
        )
    if not found.endswith(_QUERY) or found == f"{remote}{_QUERY}":
        raise UserError(
            f"{remote} leads to what is no repository, on {http.host_of(found)}",
            "name the repository itself",
        )
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    path = unquote(found.removesuffix(_QUERY)[len(f"{parts.scheme}://{parts.netloc}") :])
    return replace(remote, host=host, port=parts.port, path=path)


def _named(remote: Remote, options: SourceOptions) -> str | None:
    """Return the remote's server, if the operator or a person at a terminal means it, wherever it
    is.
    """
    meant = (
        {remote.host, remote.address} & options.insecure_hosts
        or (options.attended and not options.anonymous)
        or token_line(remote.address, options)
    )
    port = remote.port or _PORTS.get(remote.scheme)
    return f"{remote.host}:{port}" if meant else None
