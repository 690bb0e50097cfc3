"""Proxies as Go reads them: the table is that of golang.org/x/net/http/httpproxy's own tests."""

import pytest

from imagemill.errors import OperatorError
from imagemill.proxies import proxy_for

PROXY = "http://proxy.test:3128"


def goes_by_proxy(host: str, port: int = 80, no_proxy: str = "") -> bool:
    return proxy_for("http", host, port, {"HTTP_PROXY": PROXY, "NO_PROXY": no_proxy}) is not None


NO_PROXY = (
    "foobar.com, .barbaz.net, *.wild.io, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, 10.0.0.0/30,"
    " 2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64"
)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", False),
        ("127.0.0.1", False),
        ("127.0.0.2", False),
        ("[::1]", False),
        ("[::2]", True),
        ("localhost.net", True),
        ("192.168.1.1", False),
        ("192.168.1.2", True),
        ("192.168.1.3", False),
        ("192.168.1.4", True),
        ("10.0.0.2", False),
        ("[2001:db8::52:0:1]", False),
        ("[2001:db8::52:0:2]", True),
        ("[2001:db8::52:0:3]", False),
        ("[2002:db8:a::123]", False),
        ("[fe80::424b:c8be:1643:a1b6]", True),
        ("barbaz.net", True),
        ("www.barbaz.net", False),
        ("foobar.com", False),
        ("www.foobar.com", False),
        ("foofoobar.com", True),
        ("baz.com", True),
        ("WWW.FOOBAR.COM", False),
        ("wild.io", True),
        ("a.wild.io", False),
    ],
)
def test_exceptions(host: str, expected: bool) -> None:
    assert goes_by_proxy(host, no_proxy=NO_PROXY) is expected


@pytest.mark.parametrize(("no_proxy", "expected"), [("*", False), ("", True), (" , ", True)])
def test_star_is_everything(no_proxy: str, expected: bool) -> None:
    assert goes_by_proxy("a.com", no_proxy=no_proxy) is expected


def test_port_of_an_exception_counts() -> None:
    assert goes_by_proxy("a.com", 443, "a.com:80")
    assert not goes_by_proxy("a.com", 80, "a.com:80")


@pytest.mark.parametrize(
    ("scheme", "variables", "proxy"),
    [
        ("https", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https", {"https_proxy": PROXY}, PROXY),
        ("https", {"HTTPS_PROXY": "proxy.test:3128"}, PROXY),
        ("https", {"HTTP_PROXY": PROXY}, None),
        ("http", {"HTTPS_PROXY": PROXY}, None),
        ("https", {"HTTPS_PROXY": "https://u:p@proxy.test"}, "https://u:p@proxy.test"),
        ("https", {"HTTPS_PROXY": PROXY, "no_proxy": "a.com"}, None),
        ("https", {"HTTPS_PROXY": ""}, None),
        ("https", {}, None),
    ],
)
def test_each_scheme_has_its_variable(
    scheme: str, variables: dict[str, str], proxy: str | None
) -> None:
    assert proxy_for(scheme, "a.com", 443, variables) == proxy


@pytest.mark.parametrize("proxy", ["socks5://proxy", "http://", "http://[x", "http://u:secret@:x"])
def test_what_is_no_proxy_is_told_without_its_password(proxy: str) -> None:
    with pytest.raises(OperatorError, match="HTTPS_PROXY holds no proxy") as raised:
        proxy_for("https", "a.com", 443, {"HTTPS_PROXY": proxy})
    assert "secret" not in str(raised.value)
