"""The URLs of broker and backend: what is read, and in which words the rest is refused."""

import pytest

from imagemill.connections import backend_url, broker_url
from imagemill.errors import UserError

SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:6379/0",
        "redis://h",
        "redis://",
        "redis:///3",
        "redis://user:p%40s%2Fs@h:6379/0",
        "redis://:p:s@[::1]:6379/0",
        "redis+socket:///run/valkey.sock?virtual_host=1",
        "amqp://user:p%25@h:5672//",
        "amqps://h/vhost",
    ],
)
def test_a_url_that_can_be_read_stays_as_it_is(url: str) -> None:
    assert broker_url(f" {url}\n") == url


@pytest.mark.parametrize(
    ("given", "query"),
    [
        ("", "ssl_cert_reqs=required"),
        ("?ssl_cert_reqs=CERT_REQUIRED", "ssl_cert_reqs=required"),
        ("?ssl_cert_reqs=required", "ssl_cert_reqs=required"),
        ("?ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs=none"),
        ("?ssl_ca_certs=/etc/ca.pem", "ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=required"),
    ],
)
def test_with_tls_certificates_are_verified_unless_the_url_says_otherwise(
    given: str, query: str
) -> None:
    assert broker_url(f"rediss://h:6380/0{given}") == f"rediss://h:6380/0?{query}"
    assert backend_url(None, f"rediss://h:6380/0{given}") == f"rediss://h:6380/0?{query}"


def test_a_wrong_word_for_verifying_is_refused() -> None:
    with pytest.raises(UserError, match="required, optional or none"):
        broker_url("rediss://h/0?ssl_cert_reqs=yes")


PASSWORDS = [f"{SECRET}{odd}x" for odd in ("@", "/", "#", "?", "%", "[", "]", " ", "@s/s#%[x]:y")]
"""Those that have to be percent-encoded, and are not."""


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("form", ["redis://:{}@h:6379/0", "rediss://u:{}@h/0", "amqp://u:{}@h//"])
def test_a_password_that_is_not_encoded_is_one_sentence(form: str, password: str) -> None:
    with pytest.raises(UserError) as raised:
        broker_url(form.format(password))
    assert raised.value.message.startswith("The broker's URL cannot be read: ")
    assert "\n" not in raised.value.message
    assert "@ as %40" in raised.value.hint
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["redis://h:port/0", "redis://h:/0", "redis://h:99999/0", "redis://h/name", "redis://u:p@/0"],
)
def test_what_stands_at_the_wrong_place_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        broker_url(url)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("sentinel://h:26379", "Sentinel"),
        ("redis+sentinel://h:26379/mymaster/0", "Sentinel"),
        ("redis-sentinel://h:26379", "Sentinel"),
        ("sentinel://a:26379;sentinel://b:26379", "Sentinel"),
        ("redis+cluster://h:6379", "Cluster"),
        ("rediss+cluster://h:6379", "Cluster"),
    ],
)
def test_several_servers_are_refused_in_words(url: str, kind: str) -> None:
    with pytest.raises(UserError, match=f"The broker cannot be a Redis {kind}") as raised:
        broker_url(url)
    assert "the URL of one Redis" in raised.value.hint
    with pytest.raises(UserError, match=f"The backend cannot be a Redis {kind}"):
        backend_url(url, "amqp://h//")


@pytest.mark.parametrize(
    ("url", "near"), [("rediss2://h", "rediss"), ("REDIS://h", "redis"), ("ampq://h", "amqp")]
)
def test_another_kind_is_refused_with_the_nearest(url: str, near: str) -> None:
    with pytest.raises(UserError) as raised:
        broker_url(url)
    assert f"did you mean {near}://?" in raised.value.hint


@pytest.mark.parametrize("url", ["", "  ", None])
def test_no_url_is_said(url: str | None) -> None:
    with pytest.raises(UserError, match="No broker is given") as raised:
        broker_url(url)
    assert "IMAGEMILL_BROKER" in raised.value.hint


@pytest.mark.parametrize("backend", [None, "", "amqp://h//"])
def test_results_need_redis(backend: str | None) -> None:
    with pytest.raises(UserError, match="Results are kept in Redis") as raised:
        backend_url(backend, "amqp://guest:hunter2@localhost//")
    assert "IMAGEMILL_BACKEND" in raised.value.hint


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h/0?foo=1", "no such option in a redis:// URL"),
        ("redis://h/0?ssl_cert_reqs=none", "no such option in a redis:// URL"),
        ("rediss://h/0?ssl_ca_cert=/a", "did you mean ssl_ca_certs?"),
        ("rediss://h/0?SSL_CERT_REQS=none", "did you mean ssl_cert_reqs?"),
        ("redis+socket:///a?ssl_ca_certs=/a", "no such option in a redis+socket:// URL"),
        ("redis://h/0?socket_timeout=x", "an option has a value that it cannot have"),
        ("rediss://", "there is no host in it"),
    ],
)
def test_an_option_that_redis_has_not_is_one_sentence(url: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        broker_url(url)
    assert said in raised.value.message


def test_an_option_that_redis_has_is_kept() -> None:
    url = "redis://h/0?socket_timeout=5&health_check_interval=3"
    assert broker_url(url) == url
