"""The doctor before a config for a cloud: what it finds where real servers answer, refuse, or know nobody."""

import base64
import json
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from urllib3 import request

import aws_servers
import google_token_server
import servers
from aws_fixtures import REGION, own_client, use_keys
from http_faults import FaultyProxy
from imagemill.cli.commands import cli
from imagemill.config import LaunchConfig, Loaded
from imagemill.doctor import Finding, Place, Verdict, examine
from imagemill.permissions import permissions
from imagemill.registries.docker_config import DockerConfig

ACCOUNT = "123456789012"


def diagnosis(folder: Path, builder: Mapping[str, str], **environment: str) -> dict[str, Finding]:
    """The findings for a config of these two sections."""
    section = {"type": "docker", "destination": "localhost:1/r", **builder}
    return examined(folder, LaunchConfig.model_validate({"environment": environment, "builder": section}))


def examined(folder: Path, config: LaunchConfig) -> dict[str, Finding]:
    """The findings on a machine without docker and a service, by check."""
    place = Place(
        config=lambda: Loaded(config),
        destination=None,
        docker_cli=None,
        docker_host=None,
        docker_config=DockerConfig(folder),
        insecure_registries=frozenset(),
        client=None,
        environment={"PATH": str(folder)},
    )
    return {finding.check: finding for finding in examine(place)}


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


def test_a_bucket_that_is_not_there_is_named(sts: str, tmp_path: Path) -> None:
    found = aws(tmp_path, "s3://no-such-bucket-here")["context store"]
    assert found.verdict is Verdict.FAILED
    assert "no-such-bucket-here" in found.message
    assert found.grants == ()


def test_without_credentials_the_sources_are_told_once(aws_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
    assert all(there["repositoryName"] != name for there in repositories.describe_repositories()["repositories"])


def test_a_repository_that_is_there_is_found(ecr: str, repositories: Any, tmp_path: Path) -> None:
    name = ecr.partition("/")[2]
    repositories.create_repository(repositoryName=name)
    found = diagnosis(tmp_path, {"destination": ecr}, type="aws", region=REGION)
    assert found["repository"] == Finding("repository", Verdict.OK, f"{name} is there")
    # There is no registry behind that API: what a push begins with is tried at the registry itself.
    assert found["credentials"].verdict is Verdict.FAILED
    assert f"{ACCOUNT}.dkr.ecr" in found["credentials"].message


@dataclass(frozen=True)
class Guarded:
    """AWS where IAM decides, and a user whose policy is to be set."""

    iam: Any
    config: LaunchConfig

    def allow(self, *, without: str = "") -> None:
        """Let the user do what is printed for the config, without one action.

        The server knows ARNs of S3 alone, so other resources are all of them.
        """
        (policy,) = [policy for policy in permissions(self.config).policies() if policy.cloud == "aws"]
        statements = [
            statement
            | {"Action": [action for action in _listed(statement["Action"]) if action != without]}
            | ({} if statement["Resource"].startswith("arn:aws:s3") else {"Resource": "*"})
            for statement in policy.data["Statement"]
        ]
        document = policy.data | {"Statement": [statement for statement in statements if statement["Action"]]}
        self.iam.put_user_policy(UserName="worker", PolicyName="printed", PolicyDocument=json.dumps(document))


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
    everything = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
    iam.put_user_policy(UserName="root", PolicyName="all", PolicyDocument=json.dumps(everything))
    root, worker = (iam.create_access_key(UserName=name)["AccessKey"] for name in ("root", "worker"))
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
    assert found["identity"].verdict is found["context store"].verdict is found["registry"].verdict is Verdict.OK
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
    service_account: google_token_server.GoogleServer, gcs_emulator: None, gcs_bucket: str, tmp_path: Path
) -> None:
    store = {"build-context-store": f"gs://{gcs_bucket}/contexts"}
    found = diagnosis(tmp_path, store, type="gcp", region="europe-west1", project="a-project")
    assert found["identity"].verdict is Verdict.OK
    assert google_token_server.EMAIL in found["identity"].message
    assert str(tmp_path) in found["identity"].message
    assert found["context store"].verdict is Verdict.OK


def test_a_bucket_of_google_that_is_not_there_is_named(gcs_emulator: None, tmp_path: Path) -> None:
    found = diagnosis(tmp_path, {"build-context-store": "gs://no-such-bucket-here"})["context store"]
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
    body = json.dumps({"error": {"code": 403, "message": said, "errors": [{"reason": "forbidden"}]}}).encode()
    with FaultyProxy(gcs_server) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        proxy.fail_next(403, {"Content-Type": "application/json"}, match="^POST /upload", body=body)
        store = {"build-context-store": f"gs://{gcs_bucket}/contexts"}
        found = diagnosis(tmp_path, store, type="gcp", region="europe-west1", project="a-project")["context store"]
    assert found.verdict is Verdict.FAILED
    (grant,) = found.grants
    permission, command = grant.splitlines()
    assert permission == "imagemillWorkerContexts.yaml: includedPermissions: [storage.objects.create]"
    assert command.startswith(f"gcloud storage buckets add-iam-policy-binding gs://{gcs_bucket} ")
    assert f'--member="serviceAccount:{who}"' in command


# --- Azure ---


def test_who_is_known_to_azure_is_told_with_the_source(
    azure_container: str, azure_client: None, tmp_path: Path
) -> None:
    found = diagnosis(tmp_path, {"build-context-store": azure_container}, type="azure")
    assert found["identity"].verdict is Verdict.OK
    assert "EnvironmentCredential" in found["identity"].message
    assert found["context store"].verdict is Verdict.OK


def test_a_container_that_is_not_there_is_named(azure_container: str, azure_client: None, tmp_path: Path) -> None:
    missing = f"{azure_container.rpartition('/')[0]}/no-such-container"
    found = diagnosis(tmp_path, {"build-context-store": missing}, type="azure")["context store"]
    assert found.verdict is Verdict.FAILED
    assert "no-such-container" in found.message


# --- Any registry ---


def pushing(folder: Path, destination: str) -> dict[str, Finding]:
    return diagnosis(folder, {"destination": destination})


def uploads(folder: Path) -> list[Path]:
    """The uploads that a registry in the folder takes to go on; of one that was cancelled it keeps other files."""
    return [*folder.rglob("_uploads/*/startedat")]


def test_a_push_is_tried_and_leaves_nothing(tmp_path: Path) -> None:
    with servers.docker_registry(tmp_path / "registry") as address, FaultyProxy(f"http://{address}") as proxy:
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
    users.write_bytes(subprocess.check_output([servers.program("htpasswd"), "-Bbn", "ann", "right"]))
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
def test_credentials_that_are_wrong_or_missing_are_found(guarded: str, tmp_path: Path, password: str | None) -> None:
    if password:
        login(tmp_path, guarded, password)
    found = pushing(tmp_path, f"{guarded}/some/image")["credentials"]
    assert found.verdict is Verdict.FAILED
    assert "No permission to push" in found.message
    assert "docker login" in found.hint


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
    line = json.dumps({"Effect": "Allow", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{s3_bucket}/contexts/*"})
    assert f"         grant: {line}\n" in denied.stdout
    assert aws_servers.READER[1] not in denied.output
