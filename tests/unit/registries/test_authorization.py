"""What registries write into WWW-Authenticate, and what we read there."""

import pytest
from urllib3 import HTTPHeaderDict

from imagemill.errors import OperatorError
from imagemill.http import Answer
from imagemill.ports import Credentials
from imagemill.reference import ImageReference
from imagemill.registries.authorization import Authorizations, Login, parse_challenges


@pytest.mark.parametrize(
    ("headers", "challenges"),
    [
        ([], {}),
        (["Negotiate"], {}),
        (['Basic realm="Registry"'], {"basic": {"realm": "Registry"}}),
        (
            [
                'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'
            ],
            {
                "bearer": {
                    "realm": "https://auth.docker.io/token",
                    "service": "registry.docker.io",
                    "scope": "repository:a/b:pull,push",
                }
            },
        ),
        (
            ['bearer  Realm = "https://h/t" , service=plain,  error="invalid_token"'],
            {"bearer": {"realm": "https://h/t", "service": "plain", "error": "invalid_token"}},
        ),
        (
            ['Basic realm="a, Bearer realm=\\"x\\"", Bearer realm="https://h/t?x=1&y=2"'],
            {"basic": {"realm": 'a, Bearer realm="x"'}, "bearer": {"realm": "https://h/t?x=1&y=2"}},
        ),
        (
            ['Basic realm="one"', 'Bearer realm="https://h/t",service=""'],
            {"basic": {"realm": "one"}, "bearer": {"realm": "https://h/t", "service": ""}},
        ),
        (
            ["Bearer realm=https://h:5001/auth,service=Docker registry"],
            {"bearer": {"realm": "https://h:5001/auth"}},
        ),
    ],
)
def test_challenges_are_read_by_scheme(
    headers: list[str], challenges: dict[str, dict[str, str]]
) -> None:
    read = parse_challenges(headers)
    for scheme, parameters in challenges.items():
        assert parameters.items() <= read[scheme].items()
    assert read.keys() == challenges.keys()


class Source:
    def login(self, repository: ImageReference) -> Login:
        return Login(Credentials("user", "open-sesame"))


def refusal(url: str, realm: str) -> Answer:
    return Answer(
        401, HTTPHeaderDict({"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'}), b"", url
    )


def test_credentials_do_not_leave_tls_for_the_token_server() -> None:
    authorizations = Authorizations(Source(), frozenset())
    answer = refusal("https://registry.example/v2/a/manifests/v1", "http://tokens.invalid/token")
    with pytest.raises(OperatorError, match=r"to be sent to tokens\.invalid without TLS") as raised:
        authorizations.renew(answer, ImageReference.parse("registry.example/a:v1"), "pull")
    assert "tokens.invalid" in raised.value.hint
    assert "open-sesame" not in str(raised.value)
