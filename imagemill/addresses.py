"""Which network addresses may be connected to for what a request, or a server's answer, names.

A request could name a worker's own ports, the metadata service of its cloud, or a server that leads
there. So an address has to be public, or be allowed by whoever runs the workers. The special ones
are those of https://www.iana.org/assignments/iana-ipv4-special-registry and of the same for IPv6,
and what clouds tell their machines at.
"""

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from imagemill.errors import PermissionDenied

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Sequence[str]]
"""All addresses of a host, by its name or number, for connections to a port; `OSError` if there are
none.
"""


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks that are written as `10.0.0.0/8`; `ValueError` if one is none."""
    return tuple(map(ip_network, texts))


_SPECIAL = networks(
    (
        "192.0.0.0/24",  # of protocols; Oracle's clouds have metadata there
        "168.63.129.16/32",  # what Azure tells its machines; public by its number
        "::/96",  # IPv4 addresses in a spelling of old, RFC 4291
        "64:ff9b:1::/48",  # local translation to IPv4, RFC 8215
        "2002::/16",  # 6to4, which may hold any IPv4 address
        "3fff::/20",  # of documentation, RFC 9637
        "5f00::/16",  # of segment routing, RFC 9602
        "fec0::/10",  # of sites, RFC 3879
    )
)
"""Addresses that Python's registry takes for public, in all of its versions or in some."""

_METADATA = networks(("169.254.0.0/16", "100.100.100.200/32", "fd00:ec2::/32", "fd20:ce::/64"))
"""Where clouds tell machines their secrets: no network that is allowed has these in it."""

_NAT64 = IPv6Network("64:ff9b::/96")

LAN = networks(("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
"""Private networks, as companies and clusters have them."""

LOCAL = (*LAN, *networks(("127.0.0.0/8", "::1/128")))
"""The same, and this machine itself."""


def system_addresses(host: str, port: int) -> list[str]:
    """Return the addresses that this machine's system knows of a host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True)
class Reach:
    """Where connections may lead: to public addresses, and to what else is allowed here."""

    hosts: frozenset[str] = frozenset()
    """`HOST` or `HOST:PORT` that may have any address."""
    networks: tuple[Network, ...] = ()
    """Networks in which any server may be."""
    first: tuple[Network, ...] = ()
    """Networks in which the server may be that is asked, but not those that it leads to."""
    plain: frozenset[str] = frozenset()
    """`HOST` or `HOST:PORT` that may be asked without TLS."""
    to_allow: str = ""
    """What an operator does to allow a host."""
    plain_setting: str = ""
    """The variable that names the hosts that may be asked without TLS."""
    resolve: Resolve = system_addresses

    def addresses(self, host: str, port: int) -> list[Address]:
        """Return the host's addresses, all of which may be connected to.

        `OSError` or `UnicodeError` if it has none, `PermissionDenied` if one is not allowed.
        """
        found = [ip_address(address) for address in self.resolve(host.strip("[]"), port)]
        for address in found:
            self._check(host, port, address)
        return found

    def check_written(self, host: str, port: int) -> None:
        """Raise `PermissionDenied` if the host is written as an address that is not allowed.

        For connections by a proxy, which looks names up itself.
        """
        if address := _written(host.strip("[]")):
            self._check(host, port, address)

    def beyond(self, peer: Address | None, *, plain: bool = False) -> "Reach":
        """Return where another server may be that the one at the address `peer` leads to.

        A private one may lead to its neighbours, and to this machine only one of it that was asked
        without TLS, as none elsewhere is.
        """
        near: tuple[Network, ...] = ()
        if self.first and peer and is_in(peer, LAN):
            near = LAN
        elif self.first and peer and peer.is_loopback and plain:
            near = LOCAL
        return replace(self, networks=(*self.networks, *near), first=())

    def admits(self, address: Address) -> bool:
        """Return whether a server that nobody has named may have the address."""
        meant = _without_wrapping(address)
        if is_in(meant, _METADATA):
            return False
        allowed = (*self.networks, *self.first)
        return is_in(meant, allowed) or is_in(address, allowed) or is_public(meant)

    def _check(self, host: str, port: int, address: Address) -> None:
        named = f"{host}:{port}"
        if {host, named} & self.hosts or self.admits(address):
            return
        raise PermissionDenied(
            f"{named} may not be asked: its address {address} is not public",
            f"if that is meant, have the operator {self.to_allow}",
        )


def is_in(address: Address, among: Iterable[Network]) -> bool:
    """Return whether the address is in one of the networks."""
    return any(address in network for network in among)


def is_public(address: Address) -> bool:
    """Return whether everybody can connect to the address, so that nothing is gained by doing it
    from here.
    """
    return address.is_global and not address.is_multicast and not is_in(address, _SPECIAL)


def _written(host: str) -> Address | None:
    """Return the address that a host is, also in spellings such as `0x7f.1`; None if it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _without_wrapping(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address leads to, where it is made of one (RFC 4291,
    section 2.5.5; RFC 6052).
    """
    if not isinstance(address, IPv6Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address
