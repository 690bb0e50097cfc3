"""Amazon's registry by what its API answers: which answers are an image, none, or an error, and whose
error it is. What it does with images is seen on moto's server, in the contract suite.
"""

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from aws_fixtures import REGION, use_keys
from imagemill.clouds import aws
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.reference import ImageReference
from imagemill.registries.ecr import RENEW_BEFORE, EcrRegistry
from images import OCI_MANIFEST
from web import Request, Response, serve

ONE, TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
APP = ImageReference.parse(f"123456789012.dkr.ecr.{REGION}.amazonaws.com/team/app")
V1 = APP.with_tag("v1")


@dataclass
class Api:
    """ECR's answers, by the action: a document, the code of an error, or what is to be called."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def answer(self, request: Request) -> Response:
        action = request.headers["x-amz-target"].rpartition(".")[2]
        given = json.loads(request.body)
        self.asked.append((action, given))
        found = self.answers[action]
        if callable(found):
            found = found(given)
        if isinstance(found, str):
            return Response(400, body=json.dumps({"__type": found, "message": "why"}).encode())
        return Response(body=json.dumps(found).encode())

    def of(self, action: str) -> list[dict[str, Any]]:
        return [given for asked, given in self.asked if asked == action]


@pytest.fixture
def api(aws_environment: pytest.MonkeyPatch) -> Iterator[Api]:
    found = Api()
    with serve(found.answer) as web:
        aws_environment.setenv("AWS_ENDPOINT_URL_ECR", f"http://{web.address}")
        use_keys(aws_environment, "testing", "testing")
        yield found
        aws.forget()


def shown(*digests: str) -> dict[str, Any]:
    return {"imageDetails": [{"imageDigest": digest} for digest in digests]}


def tagged(tags: dict[str, str]) -> Callable[[dict[str, Any]], Any]:
    """`DescribeImages` of a repository with these tags."""

    def describe(given: dict[str, Any]) -> Any:
        digest = tags.get(given["imageIds"][0].get("imageTag", ""))
        return shown(digest) if digest else "ImageNotFoundException"

    return describe


MANIFEST = {"imageManifest": "{}", "imageManifestMediaType": OCI_MANIFEST}


def test_a_tag_is_looked_up_in_the_account_of_its_host(api: Api) -> None:
    api.answers["DescribeImages"] = shown(ONE)
    assert EcrRegistry().digest(V1) == ONE
    assert EcrRegistry().digest(APP) == ONE
    assert EcrRegistry().digest(APP.with_digest(ONE)) == ONE
    names = {"registryId": "123456789012", "repositoryName": "team/app"}
    ids = [{"imageTag": "v1"}, {"imageTag": "latest"}, {"imageDigest": ONE}]
    assert api.of("DescribeImages") == [{**names, "imageIds": [each]} for each in ids]


@pytest.mark.parametrize("code", ["ImageNotFoundException", "RepositoryNotFoundException"])
def test_what_is_not_there_has_no_digest_and_is_deleted_already(api: Api, code: str) -> None:
    api.answers |= {"DescribeImages": code, "BatchDeleteImage": code}
    assert EcrRegistry().digest(V1) is None
    EcrRegistry().delete(V1)


@pytest.mark.parametrize("answer", [shown(), shown(ONE, TWO), shown("sha256:short"), shown(TWO)])
def test_another_answer_than_one_digest_is_neither_yes_nor_no(
    api: Api, answer: dict[str, Any]
) -> None:
    api.answers["DescribeImages"] = answer
    with pytest.raises(ServiceUnreachable, match="ECR answers with the digests"):
        EcrRegistry().digest(APP.with_digest(ONE))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccessDeniedException", PermissionDenied),
        ("LimitExceededException", OperatorError),
        ("InvalidParameterException", UserError),
        ("ServerException", TransientError),
    ],
)
def test_an_error_says_who_can_act(api: Api, code: str, kind: type[ImagemillError]) -> None:
    api.answers |= {"DescribeRepositories": "RepositoryNotFoundException", "CreateRepository": code}
    with pytest.raises(ImagemillError) as raised:
        EcrRegistry().prepare(APP)
    assert isinstance(raised.value, kind)


def test_a_permission_that_is_missing_is_named_with_its_repository(api: Api) -> None:
    api.answers["DescribeImages"] = "AccessDeniedException"
    with pytest.raises(PermissionDenied) as raised:
        EcrRegistry().digest(V1)
    assert raised.value.action == "ecr:DescribeImages"
    assert raised.value.resource == f"arn:aws:ecr:{REGION}:123456789012:repository/team/app"


def test_only_tags_that_are_missing_are_written(api: Api) -> None:
    api.answers |= {
        "DescribeImages": tagged({"there": ONE, "old": TWO}),
        "BatchGetImage": {"images": [MANIFEST]},
        "PutImage": {},
    }
    EcrRegistry().tag(APP.with_digest(ONE), ("there", "old", "new"))
    assert [each["imageTag"] for each in api.of("PutImage")] == ["old", "new"]
    assert {each["imageDigest"] for each in api.of("PutImage")} == {ONE}
    assert {each["imageManifestMediaType"] for each in api.of("PutImage")} == {OCI_MANIFEST}
    api.asked.clear()
    EcrRegistry().tag(APP.with_digest(ONE), ("there",))
    assert [action for action, _ in api.asked] == ["DescribeImages"]


def test_a_tag_is_given_to_what_has_a_digest(api: Api) -> None:
    with pytest.raises(ValueError, match="has no digest"):
        EcrRegistry().tag(V1, ("v2",))
    assert api.asked == []


def test_a_tag_that_cannot_be_moved_is_told_unless_somebody_else_has_written_it(api: Api) -> None:
    tags = {"v1": TWO}
    api.answers |= {
        "DescribeImages": tagged(tags),
        "BatchGetImage": {"images": [MANIFEST]},
        "PutImage": "ImageTagAlreadyExistsException",
    }
    with pytest.raises(UserError, match="cannot be moved from"):
        EcrRegistry().tag(APP.with_digest(ONE), ("v1",))

    def quicker(_: dict[str, Any]) -> str:
        tags["v1"] = ONE
        return "ImageAlreadyExistsException"

    api.answers["PutImage"] = quicker
    EcrRegistry().tag(APP.with_digest(ONE), ("v1",))


def test_an_image_that_is_gone_before_it_is_tagged_is_to_be_built_again(api: Api) -> None:
    api.answers |= {"DescribeImages": tagged({}), "BatchGetImage": {"images": []}}
    with pytest.raises(TransientError, match="not in the registry any more"):
        EcrRegistry().tag(APP.with_digest(ONE), ("v1",))


def test_who_may_not_read_images_is_told_that_further_tags_need_it(api: Api) -> None:
    api.answers |= {"DescribeImages": tagged({}), "BatchGetImage": "AccessDeniedException"}
    with pytest.raises(PermissionDenied, match="ask for no further tags") as raised:
        EcrRegistry().tag(APP.with_digest(ONE), ("v1",))
    assert raised.value.action == "ecr:BatchGetImage"


def test_a_repository_is_made_once_whoever_is_quicker(api: Api) -> None:
    api.answers |= {"DescribeRepositories": {"repositories": [{}]}}
    EcrRegistry().prepare(APP)
    assert [action for action, _ in api.asked] == ["DescribeRepositories"]
    api.answers |= {
        "DescribeRepositories": "RepositoryNotFoundException",
        "CreateRepository": "RepositoryAlreadyExistsException",
    }
    EcrRegistry().prepare(APP)
    assert api.of("CreateRepository") == [
        {"registryId": "123456789012", "repositoryName": "team/app"}
    ]


def test_a_login_is_kept_as_long_as_a_build_may_still_push_with_it(api: Api) -> None:
    token = base64.b64encode(b"AWS:secret").decode()
    ends = [time.time() + RENEW_BEFORE - 60, time.time() + 2 * RENEW_BEFORE]

    def login(_: dict[str, Any]) -> Any:
        data = {"authorizationToken": token, "expiresAt": ends.pop(0)}
        return {"authorizationData": [data]}

    api.answers["GetAuthorizationToken"] = login
    registry = EcrRegistry()
    logins = [registry.credentials(APP) for _ in range(3)]
    assert {(each.username, each.password) for each in logins} == {("AWS", "secret")}
    assert len(api.asked) == 2
    assert ends == []


def test_without_a_role_there_is_no_token_that_only_pushes(api: Api) -> None:
    assert EcrRegistry().push_token(APP) is None
    assert api.asked == []


def test_what_cannot_be_deleted_is_told_with_the_reason(api: Api) -> None:
    failure = {"failureCode": "ImageReferencedByManifestList", "failureReason": "of an index"}
    api.answers["BatchDeleteImage"] = {"failures": [{"failureCode": "ImageNotFound"}]}
    EcrRegistry().delete(V1)
    api.answers["BatchDeleteImage"] = {"failures": [failure]}
    with pytest.raises(OperatorError, match="ImageReferencedByManifestList of an index"):
        EcrRegistry().delete(V1)


def test_another_registrys_image_is_none_of_its_business(api: Api) -> None:
    with pytest.raises(ValueError, match="not a host of ECR"):
        EcrRegistry().digest(ImageReference.parse("registry.example.com/app:v1"))
