"""Which proxy a connection goes by, as Go's programs and so docker have it.

The variables are HTTPS_PROXY, HTTP_PROXY and NO_PROXY, or the same in lower case; what stands in
NO_PROXY is told in https://pkg.go.dev/golang.org/x/net/http/httpproxy#Config.
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from imagemill.addresses import Address, Network
from imagemill.errors import OperatorError


def proxy_for(scheme: str, host: str, port: int, variables: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy for connections to a server; None if there is to be none.

    `OperatorError` if the variable does not hold a proxy that can be used. The URL may hold a
    password: do not print it.
    """
    name = f"{scheme.upper()}_PROXY"
    proxy = _variable(variables, name)
    if not proxy or _is_excepted(host.strip("[]").lower(), port, _variable(variables, "NO_PROXY")):
        return None
    return _url(name, proxy)


def _variable(variables: Mapping[str, str], name: str) -> str:
    return variables.get(name) or variables.get(name.lower()) or ""


@lru_cache(maxsize=16)
def _url(variable: str, proxy: str) -> str:
    url = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise OperatorError(
            f"The variable {variable} holds no proxy that can be used",
            "write http://HOST:PORT or https://HOST:PORT",
        )
    return url


def _is_excepted(host: str, port: int, exceptions: str) -> bool:
    """Whether NO_PROXY says so, or the host is this machine itself."""
    if host == "localhost":
        return True
    try:
        address: Address | None = ip_address(host)
    except ValueError:
        address = None
    if address and address.is_loopback:
        return True
    return any(
        _fits(exception, host, port, address)
        for text in exceptions.split(",")
        if (exception := text.strip().lower())
    )


def _fits(exception: str, host: str, port: int, address: Address | None) -> bool:
    if exception == "*":
        return True
    network = _network(exception)
    if network:
        return address is not None and address in network
    name, its_port = _split(exception)
    if its_port not in ("", str(port)):
        return False
    try:
        return ip_address(name.strip("[]")) == address
    except ValueError:
        pass
    if name.startswith("*."):
        name = name[1:]
    return host.endswith(name) if name.startswith(".") else f".{host}".endswith(f".{name}")


@lru_cache(maxsize=256)
def _network(text: str) -> Network | None:
    try:
        return ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _split(text: str) -> tuple[str, str]:
    """Name and port; an IPv6 address may stand without brackets where it has no port."""
    name, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (":" not in name or name.endswith("]")):
        return name, port
    return text, ""
