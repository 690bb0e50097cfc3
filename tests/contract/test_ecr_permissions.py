"""The permissions that the launch agent's guide lists suffice for ECR: IAM, which moto enforces,
refuses all else.
"""

import hashlib
import http.client
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

import aws_servers
from aws_fixtures import REGION, own_client, use_keys
from imagemill.clouds import aws
from imagemill.errors import OperatorError, PermissionDenied
from imagemill.reference import ImageReference
from imagemill.registries.ecr import EcrRegistry
from images import OCI_MANIFEST

GRANTED = (
    "BatchCheckLayerAvailability",
    "BatchDeleteImage",
    "CompleteLayerUpload",
    "CreateRepository",
    "DescribeImages",
    "DescribeRepositories",
    "GetAuthorizationToken",
    "InitiateLayerUpload",
    "PutImage",
    "UploadLayerPart",
)
"""What the guide grants."""

Keys = tuple[str, str]


@dataclass(frozen=True)
class Site:
    """ECR at `url`, where IAM's policies decide, and the keys of users by what they may do."""

    url: str
    allowed: Keys
    without: dict[str, Keys]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with aws_servers.ecr(tmp_path_factory.mktemp("moto")) as server:
        iam = own_client("iam", server.url, ("testing", "testing"))
        without = {action: user(iam, set(GRANTED) - {action}) for action in GRANTED}
        allowed = user(iam, set(GRANTED))
        enforce(server.url)
        yield Site(server.url, allowed, without)


def user(iam: Any, actions: set[str]) -> Keys:
    """A new user who may do just this."""
    name = f"mill-{uuid.uuid4().hex}"
    iam.create_user(UserName=name)
    # moto asks a policy about the resource "*", whatever the request is about.
    statement = {
        "Effect": "Allow",
        "Action": [f"ecr:{action}" for action in sorted(actions)],
        "Resource": "*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=name, PolicyName="mill", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def enforce(url: str) -> None:
    """Have IAM decide from the next request on."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("POST", "/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
    assert connection.getresponse().status == 200
    connection.close()


@pytest.fixture
def acting(aws_environment: pytest.MonkeyPatch, site: Site) -> Callable[[Keys], EcrRegistry]:
    """Go on as the user of these keys, with an adapter that knows nothing."""
    aws_environment.setenv("AWS_ENDPOINT_URL_ECR", site.url)

    def act(keys: Keys) -> EcrRegistry:
        use_keys(aws_environment, *keys)
        return EcrRegistry()

    return act


def new_name() -> ImageReference:
    return ImageReference.parse(
        f"123456789012.dkr.ecr.{REGION}.amazonaws.com/test/{uuid.uuid4().hex}"
    )


def push(site: Site, image: ImageReference) -> str:
    """Push as a registry's own end does on `docker push`, with the permissions that are granted."""
    manifest = json.dumps({"mediaType": OCI_MANIFEST, "id": uuid.uuid4().hex})
    digest = f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"
    own_client("ecr", site.url, site.allowed).put_image(
        repositoryName=image.path,
        imageManifest=manifest,
        imageManifestMediaType=OCI_MANIFEST,
        imageTag=image.tag,
        imageDigest=digest,
    )
    return digest


def test_what_the_guide_grants_suffices(site: Site, acting: Callable[[Keys], EcrRegistry]) -> None:
    registry, image = acting(site.allowed), new_name().with_tag("v1")
    assert registry.digest(image) is None
    registry.prepare(image)
    registry.prepare(image)
    assert registry.digest(image) is None
    assert registry.credentials(image).username == "AWS"
    digest = push(site, image)
    assert registry.digest(image) == digest
    registry.tag(image.with_digest(digest), ("v1",))  # which it has already
    registry.delete(image)
    assert registry.digest(image) is None


def test_further_tags_need_more_and_the_error_says_what(
    site: Site, acting: Callable[[Keys], EcrRegistry]
) -> None:
    registry, image = acting(site.allowed), new_name().with_tag("v1")
    registry.prepare(image)
    digest = push(site, image)
    with pytest.raises(PermissionDenied) as raised:
        registry.tag(image.with_digest(digest), ("stable",))
    assert raised.value.action == "ecr:BatchGetImage"
    assert raised.value.resource.endswith(f":repository/{image.path}")
    assert "an image is given further tags with it" in raised.value.hint


@pytest.mark.parametrize(
    ("action", "call"),
    [
        ("DescribeImages", lambda registry, image: registry.digest(image)),
        ("DescribeRepositories", lambda registry, image: registry.prepare(image)),
        ("CreateRepository", lambda registry, image: registry.prepare(image)),
        ("GetAuthorizationToken", lambda registry, image: registry.credentials(image)),
        ("BatchDeleteImage", lambda registry, image: registry.delete(image)),
    ],
)
def test_what_is_not_granted_is_named(
    site: Site,
    acting: Callable[[Keys], EcrRegistry],
    action: str,
    call: Callable[[EcrRegistry, ImageReference], object],
) -> None:
    with pytest.raises(PermissionDenied) as raised:
        call(acting(site.without[action]), new_name().with_tag("v1"))
    assert raised.value.action == f"ecr:{action}"
    assert f"ecr:{action}" in raised.value.message
    assert raised.value.hint.startswith(f"allow ecr:{action} on ")
    if action == "GetAuthorizationToken":
        assert raised.value.resource == "*"


WRONG_KEYS = pytest.mark.parametrize(
    ("known", "code"),
    [(True, "SignatureDoesNotMatch"), (False, "InvalidClientTokenId")],
    ids=["secret", "key"],
)


def wrong_keys(site: Site, known: bool) -> Keys:
    return site.allowed[0] if known else "AKIAIOSFODNN7EXAMPLE", "wrong-secret"


@WRONG_KEYS
def test_wrong_keys_are_told(
    aws_environment: pytest.MonkeyPatch,
    site: Site,
    acting: Callable[[Keys], EcrRegistry],
    known: bool,
    code: str,
) -> None:
    aws_environment.setenv("AWS_ENDPOINT_URL_STS", site.url)
    acting(wrong_keys(site, known))
    with pytest.raises(OperatorError, match=rf"^The AWS credentials are wrong.*{code}") as raised:
        aws.identity(REGION)
    assert not isinstance(raised.value, PermissionDenied)
    assert "wrong-secret" not in str(raised.value)


@WRONG_KEYS
def test_refusal_in_another_form_than_ecrs_is_told_with_its_words(
    site: Site, acting: Callable[[Keys], EcrRegistry], known: bool, code: str
) -> None:
    """moto refuses wrong keys to ECR in the XML of other services, of which the SDK understands the
    status alone.

    What ECR itself says is JSON, and an `OperatorError`: test_ecr.py, test_wrong_keys_are_told.
    """
    with pytest.raises(PermissionDenied, match=code) as raised:
        acting(wrong_keys(site, known)).digest(new_name().with_tag("v1"))
    assert "wrong-secret" not in str(raised.value)
