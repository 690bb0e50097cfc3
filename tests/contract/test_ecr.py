"""Amazon's registry through its API, on moto's server, with images whose digests are those of their
manifests.
"""

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from aws_fixtures import REGION, own_client
from ecr_sessions import ecr_sessions
from http_faults import FaultyProxy
from imagemill.clouds import aws
from imagemill.clouds.ecr import PULL, PUSH
from imagemill.errors import (
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.objects import store_for
from imagemill.ports import PushRole, Registry
from imagemill.reference import ImageReference
from imagemill.registries import registry_for
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.ecr import RENEW_BEFORE, EcrRegistry
from images import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from web import Response, Web, serve

ACCOUNT = "123456789012"
HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
ABSENT = f"sha256:{'0' * 64}"


class Pushed:
    """A repository of its own, written to behind the adapter's back."""

    def __init__(self, api: Any, mutability: str = "MUTABLE") -> None:
        self.name = ImageReference.parse(f"{HOST}/test/{uuid.uuid4().hex}")
        self._api = api
        api.create_repository(repositoryName=self.name.path, imageTagMutability=mutability)

    def image(self, tag: str, media_type: str = OCI_MANIFEST, label: str = "") -> str:
        """Push an image and return its digest."""
        manifest = json.dumps(
            {"mediaType": media_type, "annotations": {"label": label}, "id": uuid.uuid4().hex}
        )
        digest = f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"
        self._api.put_image(
            repositoryName=self.name.path,
            imageManifest=manifest,
            imageManifestMediaType=media_type,
            imageTag=tag,
            imageDigest=digest,
        )
        return digest


@pytest.fixture(scope="module")
def api(moto_server: str) -> Any:
    return own_client("ecr", moto_server, ("testing", "testing"))


@pytest.fixture
def repository(api: Any, ecr_keys: pytest.MonkeyPatch) -> Pushed:
    return Pushed(api)


@pytest.fixture
def registry(ecr_keys: pytest.MonkeyPatch) -> Registry:
    return EcrRegistry()


@pytest.fixture
def proxy(ecr_keys: pytest.MonkeyPatch, moto_server: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(moto_server) as proxy:
        ecr_keys.setenv("AWS_ENDPOINT_URL_ECR", proxy.url)
        aws.forget()
        yield proxy


def new_name() -> ImageReference:
    return ImageReference.parse(f"{HOST}/test/{uuid.uuid4().hex}")


class TestDigest:
    @pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX])
    def test_digest_of_a_tag(self, repository: Pushed, registry: Registry, media_type: str) -> None:
        digest = repository.image("v1", media_type)
        repository.image("v2", media_type)
        assert registry.digest(repository.name.with_tag("v1")) == digest

    def test_digest_of_a_digest_is_the_digest_whatever_the_tag(
        self, repository: Pushed, registry: Registry
    ) -> None:
        digest = repository.image("v1")
        assert registry.digest(repository.name.with_digest(digest)) == digest
        assert registry.digest(repository.name.with_tag("gone").with_digest(digest)) == digest

    def test_reference_without_tag_and_digest_is_the_latest(
        self, repository: Pushed, registry: Registry
    ) -> None:
        digest = repository.image("latest")
        assert registry.digest(repository.name) == digest

    def test_absent_tag_absent_digest_and_absent_repository_are_none(
        self, repository: Pushed, registry: Registry
    ) -> None:
        repository.image("v1")
        assert registry.digest(repository.name.with_tag("v2")) is None
        assert registry.digest(repository.name.with_digest(ABSENT)) is None
        assert registry.digest(new_name().with_tag("v1")) is None

    def test_account_and_region_are_those_of_the_host(
        self, repository: Pushed, registry: Registry, ecr_keys: pytest.MonkeyPatch
    ) -> None:
        ecr_keys.setenv("AWS_DEFAULT_REGION", "us-west-2")
        aws.forget()
        repository.image("v1")
        elsewhere = ImageReference.parse(
            f"{HOST.replace(REGION, 'ap-south-1')}/{repository.name.path}:v1"
        )
        other = ImageReference.parse(
            f"{HOST.replace(ACCOUNT, '210987654321')}/{repository.name.path}:v1"
        )
        assert registry.digest(repository.name.with_tag("v1")) is not None
        assert registry.digest(elsewhere) is None
        assert registry.digest(other) is None

    def test_threads_share_an_adapter(self, repository: Pushed, registry: Registry) -> None:
        digest = repository.image("v1")
        with ThreadPoolExecutor(8) as threads:
            found = set(threads.map(registry.digest, [repository.name.with_tag("v1")] * 40))
        assert found == {digest}

    def test_answer_that_is_none_is_an_error(self, proxy: FaultyProxy, registry: Registry) -> None:
        proxy.fail_next(200, body=b'{"imageDetails": []}')
        with pytest.raises(ServiceUnreachable, match="ECR answers with"):
            registry.digest(new_name().with_tag("v1"))


class TestTag:
    def test_image_is_given_more_tags(self, repository: Pushed, registry: Registry) -> None:
        digest = repository.image("v1", OCI_INDEX)
        registry.tag(repository.name.with_digest(digest), ("v1.0", "stable"))
        assert registry.digest(repository.name.with_tag("v1.0")) == digest
        assert registry.digest(repository.name.with_tag("stable")) == digest
        assert registry.digest(repository.name.with_tag("v1")) == digest

    def test_tag_moves_from_another_image(self, repository: Pushed, registry: Registry) -> None:
        repository.image("stable", label="old")
        new = repository.image("v2", label="new")
        registry.tag(repository.name.with_digest(new), ("stable",))
        assert registry.digest(repository.name.with_tag("stable")) == new

    def test_image_that_is_gone_asks_for_another_build(
        self, repository: Pushed, registry: Registry
    ) -> None:
        repository.image("v1")
        with pytest.raises(TransientError, match="not in the registry any more") as raised:
            registry.tag(repository.name.with_digest(ABSENT), ("v2",))
        assert raised.value.hint == "build it again"

    def test_immutable_tag_that_is_there_already_is_fine(
        self, api: Any, registry: Registry
    ) -> None:
        repository = Pushed(api, "IMMUTABLE")
        digest = repository.image("v1")
        registry.tag(repository.name.with_digest(digest), ("stable",))
        registry.tag(repository.name.with_digest(digest), ("v1", "stable"))
        assert registry.digest(repository.name.with_tag("stable")) == digest

    def test_immutable_tag_of_another_image_is_told(self, api: Any, registry: Registry) -> None:
        repository = Pushed(api, "IMMUTABLE")
        old, new = repository.image("stable"), repository.image("v2")
        with pytest.raises(UserError) as raised:
            registry.tag(repository.name.with_digest(new), ("stable",))
        assert raised.value.message == (
            f"The tag {repository.name}:stable cannot be moved from {old} to {new}:"
            " tags are immutable in this repository"
        )
        assert "another tag" in raised.value.hint

    @pytest.mark.parametrize("mutability", ["MUTABLE", "IMMUTABLE"])
    def test_tag_that_another_worker_gave_meanwhile_is_fine(
        self, api: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch, mutability: str
    ) -> None:
        repository = Pushed(api, mutability)
        digest = repository.image("v1")
        look = registry.digest

        def look_too_early(reference: ImageReference) -> None:
            monkeypatch.setattr(registry, "digest", look)

        monkeypatch.setattr(registry, "digest", look_too_early)
        registry.tag(repository.name.with_digest(digest), ("v1",))
        assert registry.digest(repository.name.with_tag("v1")) == digest


class TestPrepare:
    def test_repository_is_made_once(self, registry: Registry, api: Any) -> None:
        name = new_name()
        registry.prepare(name)
        registry.prepare(name)
        [found] = api.describe_repositories(repositoryNames=[name.path])["repositories"]
        assert found["registryId"] == ACCOUNT

    def test_many_may_make_it_at_once(self, registry: Registry, api: Any) -> None:
        names = [new_name()] * 8
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(registry.prepare, names))
        assert api.describe_repositories(repositoryNames=[names[0].path])["repositories"]

    def test_quota_is_told(self, proxy: FaultyProxy, registry: Registry) -> None:
        proxy.fail_next(
            400, body=b'{"__type": "LimitExceededException", "message": "100000 repositories"}'
        )
        with pytest.raises(OperatorError, match="100000 repositories"):
            registry.prepare(new_name())

    def test_name_that_ecr_does_not_take_is_told(
        self, proxy: FaultyProxy, registry: Registry
    ) -> None:
        proxy.fail_next(
            400, body=b'{"__type": "InvalidParameterException", "message": "failed to satisfy"}'
        )
        with pytest.raises(UserError, match=r"ECR does not take .*: failed to satisfy"):
            registry.prepare(new_name())


class TestDelete:
    def test_tag_is_removed_and_others_stay(self, repository: Pushed, registry: Registry) -> None:
        digest = repository.image("v1")
        registry.tag(repository.name.with_digest(digest), ("stable",))
        registry.delete(repository.name.with_tag("stable"))
        assert registry.digest(repository.name.with_tag("stable")) is None
        assert registry.digest(repository.name.with_tag("v1")) == digest

    def test_what_is_not_there_is_no_error(self, repository: Pushed, registry: Registry) -> None:
        registry.delete(repository.name.with_tag("v1"))
        registry.delete(new_name().with_tag("v1"))

    def test_what_cannot_be_deleted_is_told(self, proxy: FaultyProxy, registry: Registry) -> None:
        failure = {
            "failureCode": "ImageReferencedByManifestList",
            "failureReason": "Requested image referenced",
        }
        proxy.fail_next(200, body=json.dumps({"imageIds": [], "failures": [failure]}).encode())
        with pytest.raises(OperatorError, match="ImageReferencedByManifestList"):
            registry.delete(new_name().with_tag("v1"))


class TestCredentials:
    def answer(self, proxy: FaultyProxy, password: str, lifetime: float) -> None:
        """Let ECR give these; moto's own ended in 2015."""
        token = base64.b64encode(f"AWS:{password}".encode()).decode()
        data = {"authorizationToken": token, "expiresAt": time.time() + lifetime}
        proxy.fail_next(200, body=json.dumps({"authorizationData": [data]}).encode())

    def test_they_say_when_they_end(self, proxy: FaultyProxy, registry: Registry) -> None:
        self.answer(proxy, "pass:word", 12 * 60 * 60)
        found = registry.credentials(new_name())
        assert found is not None
        assert (found.username, found.password) == ("AWS", "pass:word")
        assert found.expires == pytest.approx(time.time() + 12 * 60 * 60, abs=60)
        assert "pass:word" not in repr(found)

    def test_they_are_kept(self, proxy: FaultyProxy, registry: Registry) -> None:
        self.answer(proxy, "first", 12 * 60 * 60)
        first = registry.credentials(new_name())
        assert registry.credentials(new_name()) == first
        assert len(proxy.requests) == 1

    def test_those_that_end_soon_are_renewed(self, proxy: FaultyProxy, registry: Registry) -> None:
        self.answer(proxy, "first", RENEW_BEFORE - 60)
        self.answer(proxy, "second", RENEW_BEFORE + 600)
        found = [registry.credentials(new_name()) for _ in range(3)]
        assert [each.password for each in found if each] == ["first", "second", "second"]

    def test_each_region_has_its_own(self, proxy: FaultyProxy, registry: Registry) -> None:
        self.answer(proxy, "first", 12 * 60 * 60)
        self.answer(proxy, "second", 12 * 60 * 60)
        found = [
            registry.credentials(
                ImageReference.parse(f"{ACCOUNT}.dkr.ecr.{region}.amazonaws.com/a/b")
            )
            for region in ("eu-central-1", "us-west-2", "eu-central-1")
        ]
        assert [each.password for each in found if each] == ["first", "second", "first"]


class TestPushToken:
    ROLE = "arn:aws:iam::123456789012:role/imagemill/push"

    @pytest.fixture
    def sts(self, ecr_keys: pytest.MonkeyPatch, moto_server: str) -> Iterator[Web]:
        with ecr_sessions(ecr_keys, moto_server) as web:
            yield web

    @pytest.mark.parametrize(
        ("host", "partition", "region"),
        [
            (HOST, "aws", REGION),
            (f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn", "aws-cn", "cn-north-1"),
        ],
    )
    def test_it_is_a_sessions_whose_policy_has_the_builds_repositories_alone(
        self, sts: Web, host: str, partition: str, region: str
    ) -> None:
        image = ImageReference.parse(f"{host}/team-a/app:v1")
        base, cache = (ImageReference.parse(f"{host}/{each}") for each in ("base", "cache"))
        role = PushRole(self.ROLE.replace("aws", partition), "imagemill-build-1")
        found = EcrRegistry().push_token(image, [cache], [base], role)
        asked, login = sts.requests
        form = {key: value for key, [value] in asked.form.items()}
        assert (form["RoleArn"], form["RoleSessionName"]) == (role.name, role.session)
        assert form["DurationSeconds"] == "3600"
        assert f"/{region}/sts/" in asked.headers["authorization"]
        place = f"arn:{partition}:ecr:{region}:{ACCOUNT}:repository"
        push, pull = set(PUSH), set(PULL)
        statements = json.loads(form["Policy"])["Statement"]
        assert [(set(each["Action"]), each["Resource"]) for each in statements] == [
            ({"ecr:GetAuthorizationToken"}, "*"),
            (push, f"{place}/team-a/app"),
            (pull | push, f"{place}/cache"),
            (pull, f"{place}/base"),
        ]
        assert {each["Effect"] for each in statements} == {"Allow"}
        assert found is not None
        assert found.username == "AWS"
        assert found.password != "testing"
        assert "x-amz-security-token" in login.headers
        assert found.is_narrow
        assert found.expires == pytest.approx(time.time() + 3600, abs=60)

    def test_without_a_role_there_is_none(self, sts: Web, registry: Registry) -> None:
        assert registry.push_token(new_name()) is None
        assert sts.requests == []

    @pytest.mark.parametrize(
        ("code", "status", "kind"),
        [
            ("AccessDenied", 403, PermissionDenied),
            ("PackedPolicyTooLarge", 400, OperatorError),
            ("ValidationError", 400, OperatorError),
        ],
    )
    def test_a_session_that_is_refused_is_told(
        self,
        ecr_keys: pytest.MonkeyPatch,
        registry: Registry,
        code: str,
        status: int,
        kind: type[OperatorError],
    ) -> None:
        body = f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
        with serve(lambda _: Response(status, body=body.encode())) as web:
            ecr_keys.setenv("AWS_ENDPOINT_URL_STS", f"http://{web.address}")
            aws.forget()
            with pytest.raises(kind, match=self.ROLE):
                registry.push_token(new_name(), role=PushRole(self.ROLE, "imagemill-build-1"))


class TestFaults:
    CALLS = (
        lambda registry, name: registry.digest(name.with_tag("v1")),
        lambda registry, name: registry.prepare(name),
        lambda registry, name: registry.credentials(name),
        lambda registry, name: registry.delete(name.with_tag("v1")),
    )

    @pytest.mark.parametrize("call", CALLS, ids=["digest", "prepare", "credentials", "delete"])
    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (500, b'{"__type": "ServerException"}'),
            (503, b""),
            (400, b'{"__type": "ThrottlingException", "message": "Rate exceeded"}'),
            (400, b'{"__type": "ExpiredTokenException"}'),
        ],
    )
    def test_failing_call_is_sent_once_and_may_be_tried_again(
        self,
        proxy: FaultyProxy,
        registry: Registry,
        call: Callable[[Registry, ImageReference], object],
        status: int,
        body: bytes,
    ) -> None:
        proxy.fail_next(status, {"Retry-After": "3"}, times=100, body=body)
        with pytest.raises(TransientError) as raised:
            call(registry, new_name())
        assert len(proxy.requests) == 1
        assert not raised.value.exhausted
        assert raised.value.retry_after == (None if b"Expired" in body else 3)

    def test_registry_that_is_not_there_is_unreachable(
        self, ecr_keys: pytest.MonkeyPatch, registry: Registry
    ) -> None:
        ecr_keys.setenv("AWS_ENDPOINT_URL_ECR", "http://127.0.0.1:9")
        aws.forget()
        with pytest.raises(ServiceUnreachable):
            registry.digest(new_name().with_tag("v1"))

    def test_missing_credentials_are_told(self, aws_environment: pytest.MonkeyPatch) -> None:
        with pytest.raises(OperatorError, match="There are no AWS credentials"):
            EcrRegistry().digest(new_name().with_tag("v1"))


class TestWebIdentity:
    """Credentials that the SDK gets from STS before it asks anything."""

    @pytest.fixture
    def sts(
        self, ecr_keys: pytest.MonkeyPatch, moto_server: str, tmp_path: Path
    ) -> Iterator[FaultyProxy]:
        """STS, where the workers' token is exchanged for keys."""
        (tmp_path / "token").write_text("a token of the cluster")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            ecr_keys.delenv(name)
        ecr_keys.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", f"{tmp_path}/token")
        ecr_keys.setenv("AWS_ROLE_ARN", f"arn:aws:iam::{ACCOUNT}:role/mill")
        with FaultyProxy(moto_server) as proxy:
            ecr_keys.setenv("AWS_ENDPOINT_URL_STS", proxy.url)
            aws.forget()
            yield proxy

    def test_it_is_found(self, sts: FaultyProxy, registry: Registry) -> None:
        assert registry.digest(new_name().with_tag("v1")) is None
        assert len(sts.requests) == 1
        assert (
            aws.identity(REGION).source
            == "web identity: AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN"
        )

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (429, b"<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>"),
            (500, b""),
            (503, b""),
        ],
    )
    def test_failing_exchange_is_sent_once_and_may_be_tried_again(
        self, sts: FaultyProxy, registry: Registry, status: int, body: bytes
    ) -> None:
        sts.fail_next(status, {"Retry-After": "3"}, times=100, body=body)
        with pytest.raises(TransientError) as raised:
            registry.digest(new_name().with_tag("v1"))
        assert len(sts.requests) == 1
        assert (raised.value.retry_after, raised.value.exhausted) == (3, False)
        sts.clear()
        assert registry.digest(new_name().with_tag("v1")) is None

    @pytest.mark.parametrize("status", [200, 403, 429])
    def test_answer_that_is_not_of_sts_may_be_another_next_time(
        self, sts: FaultyProxy, registry: Registry, status: int
    ) -> None:
        sts.fail_next(status, body=b"<html>A proxy speaking<br></html>")
        with pytest.raises(ServiceUnreachable, match="the answer cannot be read") as raised:
            registry.digest(new_name().with_tag("v1"))
        assert raised.value.__suppress_context__
        assert not raised.value.exhausted
        assert len(sts.requests) == 1
        assert registry.digest(new_name().with_tag("v1")) is None

    def test_exchange_that_is_reset_is_sent_once(
        self, sts: FaultyProxy, registry: Registry
    ) -> None:
        sts.reset_next(times=100)
        with pytest.raises(ServiceUnreachable) as raised:
            registry.digest(new_name().with_tag("v1"))
        assert len(sts.requests) == 1
        assert not raised.value.exhausted

    def test_failing_exchange_for_an_upload_is_sent_once_and_left_to_the_step(
        self, sts: FaultyProxy
    ) -> None:
        def put() -> None:
            with store_for("s3://bucket", region=REGION).create("name") as stream:
                stream.write(b"content")

        sts.fail_next(503, times=100)
        with pytest.raises(ServiceUnreachable) as raised:
            put()
        assert len(sts.requests) == 1
        assert not raised.value.exhausted


class TestIdentity:
    def test_it_is_an_arn_and_where_it_came_from(self, ecr_keys: pytest.MonkeyPatch) -> None:
        found = aws.identity(REGION)
        assert found.name.startswith("arn:aws:sts::123456789012:")
        assert (
            found.source == "the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )

    def test_shared_file_is_named_as_the_source(
        self, ecr_keys: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        ecr_keys.delenv("AWS_ACCESS_KEY_ID")
        ecr_keys.delenv("AWS_SECRET_ACCESS_KEY")
        keys = "aws_access_key_id = testing\naws_secret_access_key = testing\n"
        (tmp_path / "aws-credentials").write_text(f"[default]\n{keys}")
        aws.forget()
        assert aws.identity().source == "the file ~/.aws/credentials (AWS_SHARED_CREDENTIALS_FILE)"

    def test_without_credentials_all_sources_are_listed(
        self, aws_environment: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(
            OperatorError, match=r"AWS_ACCESS_KEY_ID.*web identity.*the container.*of the instance"
        ):
            aws.identity()

    def test_half_a_key_is_told(self, ecr_keys: pytest.MonkeyPatch) -> None:
        ecr_keys.delenv("AWS_SECRET_ACCESS_KEY")
        aws.forget()
        with pytest.raises(OperatorError, match=r"cannot be used.*AWS_SECRET_ACCESS_KEY"):
            aws.identity()


@pytest.mark.parametrize(
    "host",
    [HOST, HOST.replace(".ecr.", ".ecr-fips."), f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn"],
)
def test_hosts_of_ecr_are_its_own(host: str, tmp_path: Path) -> None:
    found = registry_for(ImageReference.parse(f"{host}/a/b"), docker_config=DockerConfig(tmp_path))
    assert isinstance(found, EcrRegistry)


def test_denied_call_is_told(proxy: FaultyProxy, registry: Registry) -> None:
    who, what = (
        "arn:aws:sts::123456789012:assumed-role/mill/i-0",
        f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/a/b",
    )
    said = (
        f"User: {who} is not authorized to perform: ecr:DescribeImages on resource: {what} "
        "because no policy allows it"
    )
    body = json.dumps({"__type": "AccessDeniedException", "message": said}).encode()
    proxy.fail_next(400, body=body)
    with pytest.raises(PermissionDenied) as raised:
        registry.digest(ImageReference.parse(f"{HOST}/a/b:v1"))
    assert (raised.value.action, raised.value.resource) == ("ecr:DescribeImages", what)
    assert raised.value.hint == f"allow ecr:DescribeImages on {what} to {who}"


@pytest.mark.parametrize("code", ["UnrecognizedClientException", "InvalidSignatureException"])
def test_wrong_keys_are_told(proxy: FaultyProxy, registry: Registry, code: str) -> None:
    proxy.fail_next(400, body=json.dumps({"__type": code, "message": "not valid"}).encode())
    with pytest.raises(OperatorError, match="The AWS credentials are wrong") as raised:
        registry.credentials(new_name())
    assert not isinstance(raised.value, PermissionDenied)
    assert "AWS_SECRET_ACCESS_KEY" in raised.value.hint
