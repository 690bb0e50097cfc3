"""What the doctor makes of what it finds, without any server;
tests/integration/test_doctor_clouds.py has servers.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from imagemill.cli import render_findings
from imagemill.config import LaunchConfig, Loaded, load
from imagemill.doctor import Finding, Machine, Verdict, examine
from imagemill.doctor.examination import Case
from imagemill.doctor.registry import _may_push
from imagemill.doctor.service import policy as policy_finding
from imagemill.errors import ImagemillError, OperatorError, PermissionDenied, ServiceUnreachable
from imagemill.permissions import Use, permissions
from imagemill.reference import ImageReference
from imagemill.registries.docker_config import DockerConfig
from registry_server import registry_server
from web import Response

CONFIGS = Path(__file__).parents[3] / "configs"


def place(
    folder: Path, config: LaunchConfig | None = None, destination: str | None = None
) -> Machine:
    """A place with no docker command, no credentials and no service."""
    return Machine(
        config=lambda: Loaded(config or LaunchConfig()),
        destination=destination,
        docker_cli=None,
        docker_host=None,
        docker_config=DockerConfig(folder),
        insecure_registries=frozenset(),
        client=None,
        environment={"PATH": str(folder)},
    )


def case(name: str, folder: Path, **who: str) -> Case:
    config = load(CONFIGS / f"{name}.yaml").config
    return Case(place(folder, config), config, permissions(config), who)


def raising(error: ImagemillError) -> Callable[[], Finding]:
    def find() -> Finding:
        raise error

    return find


DENIED = PermissionDenied(
    "AWS refuses s3:PutObject", "allow it", "s3:PutObject", "arn:aws:s3:::example-imagemill/x"
)


def test_a_missing_permission_is_found_with_the_line_that_grants_it(tmp_path: Path) -> None:
    found = case("aws-docker", tmp_path, aws="arn:aws:iam::1:role/worker").checked(
        "x", raising(DENIED), Use.KEEP_CONTEXTS
    )
    assert (found.verdict, found.message, found.hint) == (
        Verdict.FAILED,
        "AWS refuses s3:PutObject",
        "allow it",
    )
    (line,) = found.grants
    assert json.loads(line) == {
        "Effect": "Allow",
        "Action": "s3:PutObject",
        "Resource": "arn:aws:s3:::example-imagemill/contexts/*",
    }


@pytest.mark.parametrize("name", ["aws-docker", "coreweave-kaniko"])
def test_a_policy_that_names_nobody_grants_also_who_is_not_known(tmp_path: Path, name: str) -> None:
    (line,) = case(name, tmp_path).checked("x", raising(DENIED), Use.KEEP_CONTEXTS).grants
    assert json.loads(line)["Action"] == "s3:PutObject"


def test_who_is_known_to_one_cloud_alone_is_not_taken_for_somebody_of_another(
    tmp_path: Path,
) -> None:
    action = "Microsoft.ContainerRegistry/registries/pull/read"
    denied = PermissionDenied("no", "", action, "registries/exampleregistry")
    for who, assignee in (
        ({"azure": "an-object-id"}, "an-object-id"),
        ({"aws": "arn:aws:iam::1:user/a"}, '"$WORKER"'),
    ):
        found = case("azure-docker", tmp_path, **who).checked(
            "registry", raising(denied), Use.FIND_IMAGES
        )
        (line,) = found.grants
        assert line.startswith(
            f'az role assignment create --assignee {assignee} --role "AcrPull" --scope '
        )
        assert found.message == f"no; it takes {action}"


def test_a_denial_in_the_words_of_the_registrys_protocol_is_told_in_the_clouds(
    tmp_path: Path,
) -> None:
    denied = PermissionDenied(
        "No permission to push: 401", "docker login", "pull,push", "somewhere"
    )
    found = case("azure-docker", tmp_path).checked("credentials", raising(denied), Use.PUSH_IMAGES)
    assert found.message.endswith(
        "/registries/pull/read, Microsoft.ContainerRegistry/registries/push/write"
    )
    assert found.hint == "grant it to the worker's identity"
    local = case("docker-local", tmp_path).checked("credentials", raising(denied), Use.PUSH_IMAGES)
    assert (local.message, local.hint, local.grants) == (denied.message, denied.hint, ())


def test_what_a_push_needs_on_ecr_is_not_said_to_be_known_from_its_first_step() -> None:
    ecr = ImageReference.parse("123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/model")
    assert _may_push(ecr).startswith(
        "may begin a push to team/model (ecr:InitiateLayerUpload); the other actions"
    )
    assert (
        _may_push(ImageReference.parse("registry.example.com/team/model"))
        == "may push to team/model"
    )


def test_the_same_reason_is_told_once(tmp_path: Path) -> None:
    looked_at = case("aws-docker", tmp_path)
    error = OperatorError("There are no credentials", "set some")
    first = looked_at.checked("identity", raising(error))
    second = looked_at.checked("context store", raising(OperatorError(error.message, error.hint)))
    other = looked_at.checked("registry", raising(ServiceUnreachable("no answer")))
    assert (first.message, first.hint) == ("There are no credentials", "set some")
    assert (second.message, second.hint) == ("for the same reason as identity", "")
    assert (second.verdict, other.message) == (Verdict.FAILED, "no answer")


def test_a_destination_that_is_none_is_found_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    found = {
        finding.check: finding
        for finding in examine(place(tmp_path, destination="localhost:5000/a:tag"))
    }
    assert found["destination"].verdict is Verdict.FAILED
    assert "has a tag" in found["destination"].message
    assert found["registry"].verdict is Verdict.WARNING
    assert "docker" in found


def test_a_config_that_cannot_be_read_is_found_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    def broken() -> Loaded:
        raise OperatorError("no config", "write one")

    looked_at = place(tmp_path)
    looked_at = Machine(**{**vars(looked_at), "config": broken})
    assert [finding.check for finding in examine(looked_at)][:2] == ["config", "docker"]


def pods_push(folder: Path, destination: str, *, graft: bool = True) -> LaunchConfig:
    """A config by which build pods push with credentials of their own."""
    builder = {
        "type": "kaniko",
        "destination": destination,
        "build-context-store": folder.as_uri(),
        "context-volume-claim": "contexts",
        "secret-name": "login",
        "secret-key": "config.json",
        "graft": graft,
    }
    return LaunchConfig.model_validate({"builder": builder})


def test_a_service_account_of_the_build_pods_cannot_be_tried_from_here(tmp_path: Path) -> None:
    config = pods_push(tmp_path, "localhost:1/r", graft=False)
    found = {finding.check: finding for finding in examine(place(tmp_path, config))}
    assert "graft" not in found
    assert found["credentials"].verdict is Verdict.WARNING
    assert "credentials of their own" in found["credentials"].message
    assert found["context store"].verdict is Verdict.OK
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("refusal", "verdict", "said"),
    [
        ([], Verdict.OK, "changes of code need no builder: the worker may push to app"),
        ([Response(403)], Verdict.WARNING, "changes of code need a builder, too: No permission"),
    ],
)
def test_where_pods_push_it_is_tried_whether_the_worker_may_for_changes_of_code(
    tmp_path: Path, refusal: list[Response], verdict: Verdict, said: str
) -> None:
    no_image = Response(404, body=b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
    with registry_server() as registry:
        registry.faults = [no_image, no_image, *refusal]  # which HEAD and GET ask for
        looked_at = place(tmp_path, pods_push(tmp_path, f"{registry.address}/app"))
        found = {finding.check: finding for finding in examine(looked_at)}["graft"]
    assert found.verdict is verdict
    assert found.message.startswith(said)


def test_where_building_is_off_neither_store_nor_credentials_are_looked_at(tmp_path: Path) -> None:
    builder = {"type": "noop", "destination": "localhost:1/r", "build-context-store": "s3://bucket"}
    found = examine(place(tmp_path, LaunchConfig.model_validate({"builder": builder})))
    assert [finding.check for finding in found] == [
        "config",
        "builder",
        "registry",
        "embedded service",
    ]


def test_findings_are_shown_with_all_their_lines_below_each_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = Finding(
        "store", Verdict.FAILED, "refused:\n- a\n- \x1b[31mb", "ask", ("first\nsecond", "third")
    )
    assert not render_findings.show([found], as_json=False)
    assert capsys.readouterr().out == (
        "failed   store: refused:\n"
        "         - a\n"
        "         - b\n"
        "         hint: ask\n"
        "         grant: first\n"
        "         second\n"
        "         grant: third\n"
    )


def test_findings_are_shown_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    warning = Finding("store", Verdict.WARNING, "slow", "wait", ("line",))
    assert render_findings.show([warning], as_json=True)
    assert json.loads(capsys.readouterr().out) == [
        {
            "check": "store",
            "verdict": "warning",
            "message": "slow",
            "hint": "wait",
            "grants": ["line"],
        }
    ]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (None, "there is none: whoever reaches the broker may have anything built"),
        ({}, "its rules hold for everybody"),
        ({"tenants": {"b": {}, "a": {}}}, "its rules hold for the tenants a, b"),
    ],
)
def test_the_policy_is_told(policy: dict[str, object] | None, said: str) -> None:
    found = policy_finding(LaunchConfig.model_validate({"policy": policy}))
    assert said in found.message
