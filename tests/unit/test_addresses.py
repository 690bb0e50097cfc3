"""Which addresses may be connected to."""

from ipaddress import ip_address

import pytest

from imagemill.addresses import LOCAL, Reach, is_public, networks
from imagemill.errors import PermissionDenied

STRICT = Reach(to_allow="add its network to SOME_SETTING")
REGISTRIES = Reach(first=LOCAL)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:a9fe:a9fe",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "3fff::1",
        "5f00::1",
        "fe80::1%1",
        "fec0::1",
        "fd00:ec2::254",
        "ff02::1",
    ],
)
def test_special_addresses_are_not_admitted(address: str) -> None:
    assert not STRICT.admits(ip_address(address))


@pytest.mark.parametrize("address", ["140.82.112.3", "2606:50c0:8000::153", "64:ff9b::8.8.8.8"])
def test_public_addresses_are_admitted(address: str) -> None:
    assert STRICT.admits(ip_address(address))
    assert REGISTRIES.beyond(None).admits(ip_address(address))


@pytest.mark.parametrize("address", ["10.1.2.3", "127.0.0.1", "::1", "fd12::1", "100.64.0.1"])
def test_registry_may_be_near_and_what_it_leads_to_may_not(address: str) -> None:
    assert REGISTRIES.admits(ip_address(address))
    assert not REGISTRIES.beyond(ip_address("140.82.112.3")).admits(ip_address(address))


def test_private_registry_may_lead_to_its_neighbours_but_nobody_to_this_machine() -> None:
    beyond = REGISTRIES.beyond(ip_address("10.0.0.5"))
    assert beyond.admits(ip_address("10.0.0.6"))
    assert not beyond.admits(ip_address("127.0.0.1"))
    from_here = REGISTRIES.beyond(ip_address("127.0.0.1"))
    assert not from_here.admits(ip_address("127.0.0.1"))
    assert not from_here.admits(ip_address("10.0.0.6"))


def test_registry_on_this_machine_without_tls_may_lead_to_this_machine() -> None:
    beyond = REGISTRIES.beyond(ip_address("127.0.0.1"), plain=True)
    assert beyond.admits(ip_address("127.0.0.1"))
    assert not beyond.admits(ip_address("169.254.169.254"))
    assert not STRICT.beyond(ip_address("127.0.0.1"), plain=True).admits(ip_address("127.0.0.1"))


def test_strict_reach_is_as_strict_beyond_a_private_server() -> None:
    reach = Reach(networks=networks(("10.0.0.0/24",)))
    assert not reach.beyond(ip_address("10.0.0.5")).admits(ip_address("10.1.0.1"))
    assert reach.beyond(ip_address("10.0.0.5")).admits(ip_address("10.0.0.6"))


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200"])
def test_no_network_that_is_allowed_has_a_metadata_service_in_it(address: str) -> None:
    everything = Reach(networks=networks(("0.0.0.0/0", "::/0")), first=LOCAL)
    assert not everything.admits(ip_address(address))


def test_host_that_is_named_may_have_any_address() -> None:
    reach = Reach(frozenset({"inside.test:8080"}), resolve=lambda *_: ["10.0.0.1"])
    assert reach.addresses("inside.test", 8080) == [ip_address("10.0.0.1")]
    with pytest.raises(PermissionDenied, match=r"inside\.test:8081 may not be asked"):
        reach.addresses("inside.test", 8081)


def test_one_address_that_is_not_public_refuses_the_host_and_says_what_to_do() -> None:
    reach = Reach(to_allow="do this", resolve=lambda *_: ["140.82.112.3", "10.0.0.1"])
    with pytest.raises(PermissionDenied, match=r"10\.0\.0\.1 is not public") as raised:
        reach.addresses("mixed.test", 443)
    assert raised.value.hint.endswith("have the operator do this")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "2130706433", "0x7f.1", "127.1", "0"])
def test_inside_address_is_seen_however_it_is_written(host: str) -> None:
    with pytest.raises(PermissionDenied):
        STRICT.check_written(host, 443)
    STRICT.check_written("names.are.left.to.the.proxy.invalid", 443)
    STRICT.check_written("140.82.112.3", 443)


def test_public_is_what_everybody_can_reach() -> None:
    assert is_public(ip_address("1.1.1.1"))
    assert not is_public(ip_address("239.1.1.1"))
