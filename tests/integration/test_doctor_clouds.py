"""The doctor before a config for a cloud: what it finds where real servers answer, refuse, or know
nobody.
"""

import base64
import json
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from urllib3 import request

import aws_servers
import google_token_server
import hardship
import servers
from aws_fixtures import REGION, own_client, use_keys
from azure_fixtures import STORAGE, Certificate, Names
from azure_token_server import OBJECT, Acr, acr
from http_faults import FaultyProxy
from imagemill import http
from imagemill.cli.commands import cli
from imagemill.config import LaunchConfig, Loaded
from imagemill.doctor import Finding, Machine, Verdict, examine
from imagemill.errors import PermissionDenied
from imagemill.objects import store_for
from imagemill.permissions import permissions
from imagemill.reference import ImageReference
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import OciRegistry
from servers import Server

ACCOUNT = "123456789012"


def diagnosis(folder: Path, builder: Mapping[str, str], **environment: str) -> dict[str, Finding]:
    """The findings for a config of these two sections."""
    section = {"type": "docker", "destination": "localhost:1/r", **builder}
    return examined(
        folder, LaunchConfig.model_validate({"environment": environment, "builder": section})
    )


def examined(
    folder: Path, config: LaunchConfig, *insecure: str, **environment: str
) -> dict[str, Finding]:
    """The findings on a machine without docker and a service, by check; `insecure` registries speak
    plain HTTP.
    """
    place = Machine(
        config=lambda: Loaded(config),
        destination=None,
        docker_cli=None,
        docker_host=None,
        docker_config=DockerConfig(folder),
        insecure_registries=frozenset(insecure),
        client=None,
        environment={"PATH": str(folder), **environment},
    )
    return {finding.check: finding for finding in examine(place)}


Leading = dict[str, str]


@pytest.fixture
def leading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Leading]:
    """Names of hosts, and the origin (`http://HOST:PORT`) of the server of ours that each leads
    to.
    """
    led: Leading = {}
    resolve = socket.getaddrinfo

    def lead(host: str, port: int, *rest: Any, **options: Any) -> Any:
        there = urlsplit(led.get(host, ""))
        return resolve(there.hostname or host, there.port or port, *rest, **options)

    def connected(connection: Any, reach: Any) -> Any:
        there = urlsplit(led.get(connection.host, ""))
        return (
            socket.create_connection((there.hostname, there.port))
            if there.hostname
            else connect(connection, reach)
        )

    connect = http._connected
    monkeypatch.setattr(http, "_connected", connected)
    monkeypatch.setattr(socket, "getaddrinfo", lead)
    yield led
    http._kept.cache_clear()  # connections that are kept lead there still


# --- AWS ---


def aws(folder: Path, store: str, **builder: str) -> dict[str, Finding]:
    return diagnosis(folder, {"build-context-store": store, **builder}, type="aws", region=REGION)


@pytest.fixture
def sts(s3_bucket: str, moto_server: str, s3_keys: pytest.MonkeyPatch) -> str:
    """The URI of a store in a new bucket, in an environment where AWS also knows who we are."""
    for service in ("ECR", "STS"):
        s3_keys.setenv(f"AWS_ENDPOINT_URL_{service}", moto_server)
    return f"s3://{s3_bucket}/contexts"


def test_who_may_write_to_the_bucket_is_fine_and_leaves_nothing(
    sts: str, s3_bucket: str, s3_admin: Any, tmp_path: Path
) -> None:
    found = aws(tmp_path, sts)
    assert found["identity"].verdict is Verdict.OK
    assert f"arn:aws:sts::{ACCOUNT}:" in found["identity"].message
    assert "AWS_ACCESS_KEY_ID" in found["identity"].message
    assert (found["context store"].verdict, found["context store"].message) == (
        Verdict.OK,
        f"{sts}: a probe was stored, read and removed again",
    )
    assert "Contents" not in s3_admin.list_objects_v2(Bucket=s3_bucket)


def test_who_may_only_read_is_told_the_statement_that_grants_writing(
    sts: str, s3_bucket: str, s3_keys: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_keys(s3_keys, *aws_servers.READER)
    found = aws(tmp_path, sts)["context store"]
    assert found.verdict is Verdict.FAILED
    assert "s3:PutObject" in found.message
    (line,) = found.grants
    assert json.loads(line) == {
        "Effect": "Allow",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{s3_bucket}/contexts/*",
    }


@pytest.mark.parametrize(
    ("access", "endpoint", "verdict", "said"),
    [
        (None, "", Verdict.OK, "by URLs that the worker signs"),
        ("identity", "", Verdict.OK, "with an identity or a key of their own"),
        (None, "http://store:9000", Verdict.OK, "with an identity or a key of their own"),
        ("signed", "http://store:9000", Verdict.FAILED, "Kaniko reads no URL without TLS"),
    ],
)
def test_how_build_pods_read_contexts_is_told(
    sts: str, tmp_path: Path, access: str | None, endpoint: str, verdict: Verdict, said: str
) -> None:
    section = {"type": "kaniko", "destination": "localhost:1/r", "build-context-store": sts}
    config = LaunchConfig.model_validate({"builder": section | {"context-access": access}})
    found = examined(tmp_path, config, AWS_ENDPOINT_URL_S3=endpoint)["context access"]
    assert (found.verdict, said in found.message) == (verdict, True)


def test_a_bucket_that_is_not_there_is_named(sts: str, tmp_path: Path) -> None:
    found = aws(tmp_path, "s3://no-such-bucket-here")["context store"]
    assert found.verdict is Verdict.FAILED
    assert "no-such-bucket-here" in found.message
    assert found.grants == ()


def test_without_credentials_the_sources_are_told_once(
    aws_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        aws_environment.delenv(name, raising=False)
    found = aws(tmp_path, "s3://bucket")
    assert found["identity"].verdict is found["context store"].verdict is Verdict.FAILED
    assert "AWS_ACCESS_KEY_ID" in found["identity"].message
    assert found["identity"].hint
    assert found["context store"].message == "for the same reason as identity"


@pytest.fixture
def repositories(moto_server: str) -> Any:
    """ECR, seen by somebody else."""
    return own_client("ecr", moto_server, ("testing", "testing"))


@pytest.fixture
def ecr(ecr_keys: pytest.MonkeyPatch) -> str:
    """A destination in ECR, whose repository is not there."""
    return f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{uuid.uuid4().hex}"


def test_a_repository_that_builds_would_make_is_a_warning_and_is_not_made(
    ecr: str, repositories: Any, tmp_path: Path
) -> None:
    found = diagnosis(tmp_path, {"destination": ecr}, type="aws", region=REGION)
    assert found["registry"].verdict is Verdict.OK
    assert found["repository"].verdict is Verdict.WARNING
    (line,) = found["repository"].grants
    name = ecr.partition("/")[2]
    assert json.loads(line) == {
        "Effect": "Allow",
        "Action": "ecr:CreateRepository",
        "Resource": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{name}",
    }
    assert all(
        there["repositoryName"] != name
        for there in repositories.describe_repositories()["repositories"]
    )


def test_a_repository_that_is_there_is_found(ecr: str, repositories: Any, tmp_path: Path) -> None:
    name = ecr.partition("/")[2]
    repositories.create_repository(repositoryName=name)
    found = diagnosis(tmp_path, {"destination": ecr}, type="aws", region=REGION)
    assert found["repository"] == Finding("repository", Verdict.OK, f"{name} is there")
    # There is no registry behind that API: what a push begins with is tried at the registry itself.
    assert found["credentials"].verdict is Verdict.FAILED
    assert f"{ACCOUNT}.dkr.ecr" in found["credentials"].message


@pytest.mark.parametrize("granted", [True, False])
def test_the_role_for_pushes_is_tried(
    ecr: str, ecr_keys: pytest.MonkeyPatch, moto_server: str, tmp_path: Path, granted: bool
) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/push"
    builder = {"type": "kaniko", "push-role": role, "destination": ecr}
    store = {"build-context-store": "file:///contexts", "context-volume-claim": "contexts"}
    with FaultyProxy(moto_server) as proxy:
        ecr_keys.setenv("AWS_ENDPOINT_URL_STS", proxy.url)
        use_keys(ecr_keys, "testing", "testing")
        if not granted:
            denied = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"
            proxy.fail_next(403, body=denied.encode())
        found = diagnosis(tmp_path, builder | store, type="local")["push role"]
    assert found.verdict is (Verdict.OK if granted else Verdict.FAILED)
    assert role in found.message
    needed = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role}
    assert [json.loads(each) for each in found.grants] == ([] if granted else [needed])


@dataclass(frozen=True)
class Guarded:
    """AWS where IAM decides, and a user whose policy is to be set."""

    iam: Any
    config: LaunchConfig

    def allow(self, *, without: str = "") -> None:
        """Let the user do what is printed for the config, without one action.

        The server knows ARNs of S3 alone, so other resources are all of them.
        """
        (policy,) = [
            policy for policy in permissions(self.config).policies() if policy.cloud == "aws"
        ]
        statements = [
            statement
            | {"Action": [action for action in _listed(statement["Action"]) if action != without]}
            | ({} if statement["Resource"].startswith("arn:aws:s3") else {"Resource": "*"})
            for statement in policy.data["policy"]["Statement"]
        ]
        document = policy.data["policy"] | {
            "Statement": [each for each in statements if each["Action"]]
        }
        self.iam.put_user_policy(
            UserName="worker", PolicyName="printed", PolicyDocument=json.dumps(document)
        )


def _listed(action: str | list[str]) -> list[str]:
    return [action] if isinstance(action, str) else action


@pytest.fixture(scope="module")
def strict_moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an AWS of our own."""
    with aws_servers.ecr(tmp_path_factory.mktemp("strict")) as server:
        yield server.url


@pytest.fixture
def guarded_aws(strict_moto: str, aws_environment: pytest.MonkeyPatch) -> Iterator[Guarded]:
    """An AWS in which the worker may do nothing yet; there is a bucket, and no repository."""
    request("POST", f"{strict_moto}/moto-api/reset")
    request("POST", f"{strict_moto}/moto-api/reset-auth", body="inf")
    iam = own_client("iam", strict_moto, ("root", "root"))
    iam.create_user(UserName="worker")
    iam.create_user(UserName="root")
    everything = {
        "Version": "2012-10-17",
        "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"},
    }
    iam.put_user_policy(UserName="root", PolicyName="all", PolicyDocument=json.dumps(everything))
    root, worker = (
        iam.create_access_key(UserName=name)["AccessKey"] for name in ("root", "worker")
    )
    s3 = own_client("s3", strict_moto, ("root", "root"))
    s3.create_bucket(Bucket="a-bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    request("POST", f"{strict_moto}/moto-api/reset-auth", body="0")
    aws_environment.setenv("AWS_ENDPOINT_URL", strict_moto)
    use_keys(aws_environment, worker["AccessKeyId"], worker["SecretAccessKey"])
    config = {
        "environment": {"type": "aws", "region": REGION},
        "builder": {
            "type": "docker",
            "destination": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/a/repository",
            "build-context-store": "s3://a-bucket/contexts",
        },
    }
    keys = (root["AccessKeyId"], root["SecretAccessKey"])
    yield Guarded(own_client("iam", strict_moto, keys), LaunchConfig.model_validate(config))
    request("POST", f"{strict_moto}/moto-api/reset-auth", body="inf")


def test_what_is_printed_suffices(guarded_aws: Guarded, tmp_path: Path) -> None:
    guarded_aws.allow()
    found = examined(tmp_path, guarded_aws.config)
    assert (
        found["identity"].verdict
        is found["context store"].verdict
        is found["registry"].verdict
        is Verdict.OK
    )
    assert found["repository"].verdict is Verdict.WARNING
    assert found["credentials"].grants == ()


@pytest.mark.parametrize(
    ("action", "check"),
    [
        ("s3:ListBucket", "context store"),
        ("s3:GetObject", "context store"),
        ("s3:PutObject", "context store"),
        ("s3:DeleteObject", "context store"),
        ("ecr:DescribeImages", "registry"),
        ("ecr:DescribeRepositories", "repository"),
        ("ecr:GetAuthorizationToken", "credentials"),
    ],
)
def test_nothing_that_is_printed_is_superfluous_and_what_is_missing_is_named(
    guarded_aws: Guarded, tmp_path: Path, action: str, check: str
) -> None:
    guarded_aws.allow(without=action)
    found = examined(tmp_path, guarded_aws.config)
    assert found[check].verdict is Verdict.FAILED
    assert action in found[check].message
    assert [json.loads(line)["Action"] for line in found[check].grants] == [action]
    others = [finding for finding in found.values() if finding.check != check]
    assert not any(action in line for finding in others for line in finding.grants)


# --- Google Cloud ---


def test_who_is_known_to_google_is_told_with_the_file_that_says_so(
    service_account: google_token_server.GoogleServer,
    gcs_emulator: None,
    gcs_bucket: str,
    tmp_path: Path,
) -> None:
    store = {"build-context-store": f"gs://{gcs_bucket}/contexts"}
    found = diagnosis(tmp_path, store, type="gcp", region="europe-west1", project="a-project")
    assert found["identity"].verdict is Verdict.OK
    assert google_token_server.EMAIL in found["identity"].message
    assert str(tmp_path) in found["identity"].message
    assert found["context store"].verdict is Verdict.OK


@pytest.mark.parametrize(
    ("access", "verdict"), [({}, Verdict.WARNING), ({"context-access": "signed"}, Verdict.FAILED)]
)
def test_who_may_not_sign_urls_is_told_what_that_means(
    gcs_emulator: None,
    gcs_bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    access: dict[str, str],
    verdict: Verdict,
) -> None:
    person = {"type": "authorized_user", "client_id": "i", "client_secret": "s"}
    (tmp_path / "person.json").write_text(json.dumps(person | {"refresh_token": "t"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "person.json"))
    builder = {"type": "kaniko", "build-context-store": f"gs://{gcs_bucket}/contexts"}
    found = diagnosis(tmp_path, builder | access)["context access"]
    assert found.verdict is verdict
    assert found.hint
    assert ("with an identity or a key of their own" in found.message) is (not access)


def test_a_bucket_of_google_that_is_not_there_is_named(gcs_emulator: None, tmp_path: Path) -> None:
    found = diagnosis(tmp_path, {"build-context-store": "gs://no-such-bucket-here"})[
        "context store"
    ]
    assert found.verdict is Verdict.FAILED
    assert "no-such-bucket-here" in found.message


def test_who_may_not_store_objects_is_told_the_permission_and_the_binding_for_himself(
    service_account: google_token_server.GoogleServer,
    gcs_server: str,
    gcs_bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    who = google_token_server.EMAIL
    said = f"{who} does not have storage.objects.create access to the Google Cloud Storage object."
    body = json.dumps(
        {"error": {"code": 403, "message": said, "errors": [{"reason": "forbidden"}]}}
    ).encode()
    with FaultyProxy(gcs_server) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        proxy.fail_next(403, {"Content-Type": "application/json"}, match="^POST /upload", body=body)
        store = {"build-context-store": f"gs://{gcs_bucket}/contexts"}
        found = diagnosis(tmp_path, store, type="gcp", region="europe-west1", project="a-project")[
            "context store"
        ]
    assert found.verdict is Verdict.FAILED
    (grant,) = found.grants
    update, bind = grant.splitlines()
    role = "imagemillWorkerContexts --project=a-project"
    assert update == f"gcloud iam roles update {role} --add-permissions=storage.objects.create"
    assert bind.startswith(f"gcloud storage buckets add-iam-policy-binding gs://{gcs_bucket} ")
    assert f"--member=serviceAccount:{who}" in bind


GAR = "europe-west4-docker.pkg.dev"


@pytest.mark.parametrize(
    ("match", "check", "permission"),
    [
        (
            "^(HEAD|GET) .*/manifests/",
            "registry",
            "artifactregistry.repositories.downloadArtifacts",
        ),
        ("^POST .*/blobs/uploads/", "credentials", "artifactregistry.repositories.uploadArtifacts"),
    ],
)
def test_who_may_not_use_a_repository_of_google_is_told_the_permission_and_the_commands_that_grant_it(
    service_account: google_token_server.GoogleServer,
    registry: str,
    leading: Leading,
    tmp_path: Path,
    match: str,
    check: str,
    permission: str,
) -> None:
    said = (
        f'Permission "{permission}" denied on resource "projects/a-project/…" (or it may not exist)'
    )
    body = json.dumps({"errors": [{"code": "DENIED", "message": said}]}).encode()
    environment = {"type": "gcp", "region": "europe-west4", "project": "a-project"}
    builder = {"type": "docker", "destination": f"{GAR}/a-project/images/model"}
    config = LaunchConfig.model_validate({"environment": environment, "builder": builder})
    with FaultyProxy(f"http://{registry}") as proxy:
        leading[GAR] = proxy.origin
        proxy.fail_next(403, {"Content-Type": "application/json"}, 9, match, body)
        findings = examined(tmp_path, config, GAR)
    found = findings[check]
    assert found.verdict is Verdict.FAILED
    assert permission in found.message
    assert "docker login" not in found.hint
    (grant,) = found.grants
    update, bind = grant.splitlines()
    role = "imagemillWorkerImages"
    assert (
        update
        == f"gcloud iam roles update {role} --project=a-project --add-permissions={permission}"
    )
    assert bind == (
        "gcloud artifacts repositories add-iam-policy-binding images --project=a-project --location=europe-west4"
        f" --member=serviceAccount:{google_token_server.EMAIL} --role=projects/a-project/roles/{role}"
    )
    if check == "credentials":
        assert findings["registry"].verdict is Verdict.OK


# --- Azure ---


def test_who_is_known_to_azure_is_told_with_the_source(
    azure_container: str, azure_client: None, tmp_path: Path
) -> None:
    found = diagnosis(tmp_path, {"build-context-store": azure_container}, type="azure")
    assert found["identity"].verdict is Verdict.OK
    assert "EnvironmentCredential" in found["identity"].message
    assert found["context store"].verdict is Verdict.OK


def test_a_container_that_is_not_there_is_named(
    azure_container: str, azure_client: None, tmp_path: Path
) -> None:
    missing = f"{azure_container.rpartition('/')[0]}/no-such-container"
    found = diagnosis(tmp_path, {"build-context-store": missing}, type="azure")["context store"]
    assert found.verdict is Verdict.FAILED
    assert "no-such-container" in found.message


def test_who_may_not_store_blobs_is_told_the_action_and_the_role_for_himself(
    azurite: Server,
    azure_container: str,
    azure_client: None,
    azure_names: Names,
    azure_certificate: Certificate,
    tmp_path: Path,
) -> None:
    code = "AuthorizationPermissionMismatch"
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    with FaultyProxy(azurite.url, azure_certificate.context()) as proxy:
        azure_names.hosts[STORAGE] = int(proxy.origin.rpartition(":")[2])
        proxy.fail_next(
            403, {"x-ms-error-code": code, "Content-Type": "application/xml"}, 9, "^PUT ", body
        )
        found = diagnosis(tmp_path, {"build-context-store": azure_container}, type="azure")[
            "context store"
        ]
    assert found.verdict is Verdict.FAILED
    assert "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write" in found.message
    show = "az storage account show --name millstore --query id --output tsv"
    assert found.grants == (
        f'az role assignment create --assignee {OBJECT} --role "Storage Blob Data Contributor" --scope'
        f' "$({show})/blobServices/default/containers/{azure_container.rpartition("/")[2]}"',
    )


def test_credentials_of_azure_that_cannot_be_used_are_found_once(
    azure_container: str, azure_client: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "nonsense")
    found = diagnosis(tmp_path, {"build-context-store": azure_container}, type="azure")
    assert found["identity"].verdict is found["context store"].verdict is Verdict.FAILED
    assert found["identity"].message.startswith("The Azure credentials cannot be used: ")
    assert found["identity"].hint
    assert found["context store"].message == "for the same reason as identity"
    assert "registry" in found


ACR = "contoso-abc123def.azurecr.io"
PULL, PUSH = (
    f"Microsoft.ContainerRegistry/registries/{action}" for action in ("pull/read", "push/write")
)


@pytest.fixture
def acr_front(tmp_path: Path, azure_client: None, leading: Leading) -> Iterator[Acr]:
    """The registry of Azure at `ACR`."""
    with acr(tmp_path) as front:
        leading[ACR] = f"http://{front.address}"
        front.address = ACR
        with servers.docker_registry(tmp_path, auth=front.registry_auth()) as address:
            front.register(address, tmp_path / "registry")
            yield front


def assignment(role: str) -> str:
    show = "az acr show --name contoso --query id --output tsv"
    return f'az role assignment create --assignee {OBJECT} --role "{role}" --scope "$({show})"'


@pytest.mark.parametrize(
    ("rights", "check", "actions", "role"),
    [
        ((), "registry", [PULL], "AcrPull"),
        ((), "credentials", [PUSH], "AcrPush"),
        (("pull",), "credentials", [PULL, PUSH], "AcrPush"),
    ],
)
def test_who_may_not_use_a_registry_of_azure_is_told_the_action_and_the_role_that_grants_it(
    acr_front: Acr,
    tmp_path: Path,
    rights: tuple[str, ...],
    check: str,
    actions: list[str],
    role: str,
) -> None:
    acr_front.rights = {OBJECT: set(rights)}
    builder = {"type": "docker", "destination": f"{ACR}/team/model"}
    config = LaunchConfig.model_validate({"environment": {"type": "azure"}, "builder": builder})
    findings = examined(tmp_path, config, ACR)
    found = findings[check]
    assert found.verdict is Verdict.FAILED
    assert found.message.endswith(f"; it takes {', '.join(actions)}")
    assert "docker login" not in found.hint
    assert found.grants == (assignment(role),)
    if rights:
        assert findings["registry"].verdict is Verdict.OK


def test_who_may_push_to_a_registry_of_azure_is_fine(acr_front: Acr, tmp_path: Path) -> None:
    acr_front.rights = {OBJECT: {"pull", "push"}}
    builder = {"type": "docker", "destination": f"{ACR}/team/model"}
    config = LaunchConfig.model_validate({"environment": {"type": "azure"}, "builder": builder})
    found = examined(tmp_path, config, ACR)
    assert found["registry"].verdict is found["credentials"].verdict is Verdict.OK


# --- Any registry ---


def pushing(folder: Path, destination: str) -> dict[str, Finding]:
    return diagnosis(folder, {"destination": destination})


def uploads(folder: Path) -> list[Path]:
    """The uploads that a registry in the folder takes to go on; of one that was cancelled it keeps
    other files.
    """
    return [*folder.rglob("_uploads/*/startedat")]


def test_a_push_is_tried_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        servers.docker_registry(tmp_path / "registry") as address,
        FaultyProxy(f"http://{address}") as proxy,
    ):
        found = pushing(tmp_path, f"{urlsplit(proxy.url).netloc}/some/image")
        assert proxy.asked("^POST /v2/some/image/blobs/uploads/") == 1
        assert proxy.asked("^DELETE /v2/some/image/blobs/uploads/") == 1
        assert uploads(tmp_path) == []
    assert found["registry"].verdict is Verdict.OK
    assert found["credentials"].verdict is Verdict.WARNING
    assert "pushes are anonymous" in found["credentials"].message


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that lets in nobody but `ann`, whose password is `right`."""
    folder = tmp_path_factory.mktemp("guarded")
    users = folder / "htpasswd"
    users.write_bytes(
        subprocess.check_output([servers.program("htpasswd"), "-Bbn", "ann", "right"])
    )
    with servers.docker_registry(folder, auth=users) as address:
        yield address


def login(folder: Path, address: str, password: str) -> None:
    auth = base64.b64encode(f"ann:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {address: {"auth": auth}}}))


def test_credentials_are_tried(guarded: str, tmp_path: Path) -> None:
    login(tmp_path, guarded, "right")
    found = pushing(tmp_path, f"{guarded}/some/image")["credentials"]
    message = f"there are some for {guarded}, and they may push to some/image"
    assert found == Finding("credentials", Verdict.OK, message)


@pytest.mark.parametrize("password", ["wrong", None])
def test_credentials_that_are_wrong_or_missing_are_found(
    guarded: str, tmp_path: Path, password: str | None
) -> None:
    if password:
        login(tmp_path, guarded, password)
    found = pushing(tmp_path, f"{guarded}/some/image")["credentials"]
    assert found.verdict is Verdict.FAILED
    assert "No permission to push" in found.message
    assert "docker login" in found.hint


@pytest.mark.parametrize(
    ("attempt", "actions"),
    [
        (lambda registry, image: registry.digest(image.with_tag("v1")), "pull"),
        (lambda registry, image: registry.delete(image.with_tag("v1")), "pull,push,delete"),
    ],
)
def test_a_registry_that_refuses_is_named_with_the_actions(
    guarded: str,
    tmp_path: Path,
    attempt: Callable[[OciRegistry, ImageReference], object],
    actions: str,
) -> None:
    image = ImageReference(guarded, "some/image")
    with pytest.raises(PermissionDenied) as raised:
        attempt(OciRegistry(DockerConfig(tmp_path)), image)
    assert (raised.value.action, raised.value.resource) == (actions, image.repository)


def test_a_folder_that_refuses_is_named_with_the_action() -> None:
    with hardship.public_folder() as folder:
        (folder / "contexts").mkdir(mode=0)
        store = store_for((folder / "contexts").as_uri())
        for attempt, action in ((store.exists, "read"), (store.delete, "write")):
            with hardship.as_nobody(), pytest.raises(PermissionDenied) as raised:
                attempt("name")
            assert (raised.value.action, raised.value.resource) == (action, f"{folder}/contexts")


@pytest.mark.parametrize(
    ("status", "code", "check", "words"),
    [
        (403, "DENIED", "credentials", "No permission to push to"),
        (404, "NAME_UNKNOWN", "repository", "makes none when it is pushed to"),
        (503, "UNAVAILABLE", "credentials", "503"),
    ],
)
def test_who_may_read_but_not_push_is_told_why(
    registry: str, tmp_path: Path, status: int, code: str, check: str, words: str
) -> None:
    with FaultyProxy(f"http://{registry}") as proxy:
        body = json.dumps({"errors": [{"code": code, "message": "no"}]}).encode()
        proxy.fail_next(status, {"Content-Type": "application/json"}, match="^POST", body=body)
        found = pushing(tmp_path, f"{urlsplit(proxy.url).netloc}/some/image")
    assert found["registry"].verdict is Verdict.OK
    assert found[check].verdict is Verdict.FAILED
    assert words in found[check].message


# --- The command ---


def test_the_command_fails_and_shows_what_grants_it(
    sts: str, s3_bucket: str, s3_keys: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "launch.yaml"
    config.write_text(
        f"environment: {{type: aws, region: {REGION}}}\nbuilder: {{type: noop, build-context-store: '{sts}'}}\n"
    )
    s3_keys.setenv("HOME", str(tmp_path))
    noop = CliRunner().invoke(cli, ["doctor", "--config", str(config)], standalone_mode=False)
    assert (noop.return_value, noop.exception) == (0, None)

    use_keys(s3_keys, *aws_servers.READER)
    config.write_text(config.read_text().replace("noop", "docker"))
    denied = CliRunner().invoke(cli, ["doctor", "--config", str(config)], standalone_mode=False)
    assert denied.return_value == 1
    line = json.dumps(
        {
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": f"arn:aws:s3:::{s3_bucket}/contexts/*",
        }
    )
    assert f"         grant: {line}\n" in denied.stdout
    assert aws_servers.READER[1] not in denied.output
