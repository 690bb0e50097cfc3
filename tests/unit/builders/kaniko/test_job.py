"""The Job that builds an image with Kaniko: its defaults, what is ours in it, how the pod gets at
what it needs.
"""

import io
import json
import math
import re
import socket
import sys
import tarfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from imagemill import authorities, context
from imagemill.builders import check_builder
from imagemill.builders.kaniko.arguments import LOW_MEMORY
from imagemill.builders.kaniko.context_access import signs, without_signatures
from imagemill.builders.kaniko.features import FEATURES
from imagemill.builders.kaniko.job import (
    Circumstances,
    job_for,
    job_name,
    label_value,
    own_secrets,
)
from imagemill.builders.kaniko.overlay import executor, pod_spec
from imagemill.builders.kaniko.pod_credentials import needs_docker_secret
from imagemill.builders.kaniko.trust import certificates, secret_data
from imagemill.builders.kaniko.validation import valid_job
from imagemill.cli.commands import main
from imagemill.config import (
    AwsEnvironment,
    AzureEnvironment,
    GcpEnvironment,
    KanikoBuilder,
    LocalEnvironment,
)
from imagemill.config.model import Environment
from imagemill.errors import ConfigError, UserError
from imagemill.messages import BuildRequest
from imagemill.ports import BuildInputs, Quiet
from imagemill.reference import ImageReference

HASH = "0123456789abcdef" * 4
REGISTRY = "registry.example.com/team/images"
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/imagemill"
GAR = "europe-west1-docker.pkg.dev/example-project/models/training"
ACR = "example.azurecr.io/models"
S3, GCS, BLOB = (
    "s3://bucket/contexts",
    "gs://bucket/contexts",
    "https://account.blob.core.windows.net/contexts",
)
AWS = AwsEnvironment(region="eu-central-1")
GCP = GcpEnvironment(region="europe-west1", project="example-project")


def section(**fields: Any) -> KanikoBuilder:
    return KanikoBuilder.model_validate(
        {"destination": REGISTRY, "build_context_store": S3, **fields}
    )


def inputs(**fields: Any) -> BuildInputs:
    image = ImageReference.parse(REGISTRY).with_tag(HASH)
    return BuildInputs(**{"image": image, "source_hash": HASH, "build_id": "build-1", **fields})


def job(
    builder: KanikoBuilder | None = None,
    wanted: BuildInputs | None = None,
    uri: str = "",
    **circumstances: Any,
) -> dict[str, Any]:
    builder = builder or section()
    uri = uri or f"{builder.build_context_store}/{HASH}.tar.gz"
    return valid_job(builder, wanted or inputs(), uri, Circumstances(**circumstances))


def arguments(made: dict[str, Any]) -> list[str]:
    found: list[str] = executor(made)["args"]
    return found


def variables(made: dict[str, Any]) -> dict[str, Any]:
    """All but the executor's switches."""
    given = {
        item["name"]: item.get("value", item.get("valueFrom")) for item in executor(made)["env"]
    }
    return {name: value for name, value in given.items() if name not in FEATURES}


def switches(made: dict[str, Any]) -> dict[str, str]:
    return {
        item["name"]: item["value"] for item in executor(made)["env"] if item["name"] in FEATURES
    }


def pod(**fields: Any) -> dict[str, Any]:
    """A `kaniko-config` with these fields in its pod."""
    return {"spec": {"template": {"spec": fields}}}


def container(**fields: Any) -> dict[str, Any]:
    """A `kaniko-config` with these fields in its first container."""
    return pod(containers=[fields])


# --- What a Job is like where the config says nothing ---


def test_job_runs_once_and_is_gone_in_the_end() -> None:
    spec = job(deadline=1799.2)["spec"]
    assert (spec["backoffLimit"], spec["completions"], spec["parallelism"]) == (0, 1, 1)
    assert spec["activeDeadlineSeconds"] == 1800
    assert spec["ttlSecondsAfterFinished"] == 3600
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_pod_has_no_token_and_the_seccomp_profile_of_the_runtime() -> None:
    spec = pod_spec(job())
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert "serviceAccountName" not in spec


def test_requests_are_made_for_all_that_a_node_can_run_out_of() -> None:
    assert executor(job())["resources"].keys() == {"requests"}
    assert executor(job())["resources"]["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}


def test_pod_leaves_a_node_that_does_not_answer_sooner_than_others_do() -> None:
    assert pod_spec(job())["tolerations"] == [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 30,
        }
        for taint in ("not-ready", "unreachable")
    ]


def test_limit_of_the_config_is_not_below_a_request_that_is_not_its_own() -> None:
    resources = executor(
        job(section(kaniko_config=container(resources={"limits": {"memory": "256Mi"}})))
    )["resources"]
    assert resources["limits"] == {"memory": "256Mi"}
    assert resources["requests"].keys() == {"cpu", "ephemeral-storage"}


def test_job_is_found_by_its_labels_and_knows_the_whole_hash() -> None:
    made = job(wanted=inputs(build_id="a/b c" * 20))
    for metadata in (made["metadata"], made["spec"]["template"]["metadata"]):
        assert metadata["labels"] == {
            "app.kubernetes.io/name": "imagemill",
            "app.kubernetes.io/managed-by": "imagemill",
            "app.kubernetes.io/component": "build",
            "dev.imagemill/build-id": label_value("a/b c" * 20),
            "dev.imagemill/source-hash": HASH[:63],
        }
        assert metadata["annotations"]["dev.imagemill/source-hash"] == HASH
        assert metadata["annotations"]["dev.imagemill/image"] == f"{REGISTRY}:{HASH}"
        assert metadata["annotations"]["dev.imagemill/build-id"] == "a/b c" * 20


@given(st.text(max_size=100))
def test_every_text_becomes_the_value_of_a_label(text: str) -> None:
    value = label_value(text)
    assert len(value) <= 63
    assert not value or (value[0].isalnum() and value[-1].isalnum() and value.isascii())


def test_name_comes_from_the_source_hash() -> None:
    name = job()["metadata"]["name"]
    assert re.fullmatch(f"imagemill-build-{HASH[:12]}-[0-9a-f]{{7}}", name)
    assert job(attempt=2)["metadata"]["name"] == f"{name}-2"


def test_one_source_has_a_job_for_each_place_that_it_goes_to() -> None:
    places = [f"registry{number}.example.com/app:v1" for number in range(6)]
    wanted = [replace(inputs(), image=ImageReference.parse(place)) for place in places]
    assert len({job(wanted=each)["metadata"]["name"] for each in wanted}) == 6


@pytest.mark.parametrize("prefix", ["a" * 42, "a" * 39 + "-aa", "b"])
def test_name_of_each_attempt_is_short_enough_for_a_label(prefix: str) -> None:
    builder = section(build_job_name=prefix)
    first, second = job_name(builder, inputs()), job_name(builder, inputs(), 2)
    assert max(len(first), len(second)) <= 63
    assert re.search(f"[ab]-{HASH[:12]}-[0-9a-f]{{7}}$", first)
    assert re.search(f"[ab]-{HASH[:12]}-[0-9a-f]{{7}}-2$", second)


@pytest.mark.parametrize(
    ("given_seconds", "left", "expected"),
    [(None, 0.3, 1), (None, 59.01, 60), (30, 60, 30), (90, 60, 60)],
)
def test_deadline_is_the_earlier_of_the_builds_and_the_configs(
    given_seconds: int | None, left: float, expected: int
) -> None:
    config = {"spec": {"activeDeadlineSeconds": given_seconds}}
    assert (
        job(section(kaniko_config=config), deadline=left)["spec"]["activeDeadlineSeconds"]
        == expected
    )


@pytest.mark.parametrize("name", ["kaniko", "build"])
def test_pod_says_which_of_its_containers_is_the_executor(name: str) -> None:
    template = job(section(kaniko_config=container(name=name)))["spec"]["template"]
    assert template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == name


def test_build_without_a_deadline_has_none() -> None:
    assert "activeDeadlineSeconds" not in job(deadline=math.inf)["spec"]


def test_failed_job_is_kept_as_long_as_the_config_says() -> None:
    assert job(section(failed_job_retention="60"))["spec"]["ttlSecondsAfterFinished"] == 60


@pytest.mark.parametrize(
    "fields",
    [{"failed_job_retention": 0}, {"kaniko_config": {"spec": {"ttlSecondsAfterFinished": 0}}}],
)
def test_job_stays_for_long_enough_to_be_read(fields: dict[str, Any]) -> None:
    assert job(section(**fields))["spec"]["ttlSecondsAfterFinished"] == 60


def test_retention_of_the_config_wins() -> None:
    def spec(retention: int | None) -> dict[str, Any]:
        config = {"spec": {"ttlSecondsAfterFinished": retention}}
        made: dict[str, Any] = job(section(kaniko_config=config))["spec"]
        return made

    assert spec(90)["ttlSecondsAfterFinished"] == 90
    assert "ttlSecondsAfterFinished" not in spec(None)


def test_build_for_a_platform_runs_on_a_node_of_that_platform() -> None:
    made = job(wanted=inputs(platform="linux/arm64/v8"))
    assert pod_spec(made)["nodeSelector"] == {
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "arm64",
    }
    assert "--custom-platform=linux/arm64/v8" in arguments(made)
    assert "nodeSelector" not in pod_spec(job())


# --- What is built ---


def test_arguments_say_what_is_built_and_where_it_goes() -> None:
    made = job(wanted=inputs(target="serve", build_args={"A": "1", "B": ""}, labels={"x.y": "a=b"}))
    assert arguments(made)[4:] == [
        f"--context=s3://bucket/contexts/{HASH}.tar.gz",
        "--context-sub-path=context",
        "--dockerfile=../Dockerfile",
        f"--destination={REGISTRY}:{HASH}",
        "--digest-file=/dev/termination-log",
        "--target=serve",
        "--build-arg=A=1",
        "--build-arg=B=",
        "--label=x.y=a=b",
    ]
    assert executor(made)["terminationMessagePath"] == "/dev/termination-log"


def test_kubernetes_expands_nothing_in_what_a_request_says() -> None:
    made = job(wanted=inputs(build_args={"A": "$(HOME) $$ $x"}))
    assert arguments(made)[-1] == "--build-arg=A=$$(HOME) $$$$ $$x"


@pytest.mark.parametrize("name", ["", "A=B"])
def test_name_that_would_be_another_one_to_kaniko_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot be the name of a build argument"):
        job(wanted=inputs(build_args={name: "1"}))
    with pytest.raises(UserError, match="cannot be the name of a label"):
        job(wanted=inputs(labels={name: "1"}))


def test_build_secrets_are_files_of_a_secret_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "pip").write_text("hunter2")
    made = job(wanted=inputs(secrets={"pip": tmp_path / "pip"}), build_secrets="own")
    assert arguments(made)[-1] == "--secret=id=pip,src=/kaniko/build-secrets/pip"
    assert executor(made)["volumeMounts"] == [
        {"name": "imagemill-build-secrets", "mountPath": "/kaniko/build-secrets", "readOnly": True}
    ]
    assert pod_spec(made)["volumes"] == [
        {
            "name": "imagemill-build-secrets",
            "secret": {
                "secretName": "own",
                "defaultMode": 0o400,
                "items": [{"key": "pip", "path": "pip"}],
            },
        }
    ]
    assert "hunter2" not in json.dumps(made)
    assert str(tmp_path) not in json.dumps(made)


REQUESTS_2GI = {"requests": {"memory": "2Gi"}}


def test_attempt_with_more_memory_has_it_and_is_told_to_need_less() -> None:
    config = container(
        args=["--snapshot-mode=full"],
        resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "2Gi", "cpu": "2"}},
    )
    made = job(section(kaniko_config=config), attempt=2, memory="4Gi")
    assert executor(made)["resources"]["limits"] == {"memory": "4Gi", "cpu": "2"}
    assert "memory" not in executor(made)["resources"]["requests"]
    assert arguments(made)[-2:] == list(LOW_MEMORY)
    assert "--snapshot-mode=full" not in arguments(made)


@pytest.mark.parametrize(
    ("config", "request_"), [({}, "1Gi"), (container(resources=REQUESTS_2GI), "2Gi")]
)
def test_attempt_after_one_without_a_limit_asks_for_no_more_than_that_did(
    config: dict[str, Any], request_: str
) -> None:
    resources = executor(job(section(kaniko_config=config), attempt=2, memory="16Gi"))["resources"]
    assert resources["limits"] == {"memory": "16Gi"}
    assert resources["requests"]["memory"] == request_


def test_registries_of_plain_http_are_named() -> None:
    made = job(insecure_registries=frozenset({"b.example:5000", "a.example"}))
    found = [argument for argument in arguments(made) if argument.startswith("--insecure")]
    assert found == ["--insecure-registry=a.example", "--insecure-registry=b.example:5000"]


# --- What the config may not change ---


@pytest.mark.parametrize(
    "argument",
    [
        "--context=dir:///x",
        "--bucket=b",
        "--dockerfile=D",
        "--digest-file=/d",
        "--no-push",
        "--no-push=true",
    ],
)
def test_argument_that_would_change_what_is_built_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError) as refused:
        job(section(kaniko_config=container(args=["--cache=true", argument])))
    assert refused.value.message.startswith(
        f"builder.kaniko-config.spec.template.spec.containers[0].args[1]: {argument.partition('=')[0]} is not"
    )


def test_variable_that_would_change_what_is_built_is_refused_too() -> None:
    config = container(
        env=[{"name": "A", "value": "1"}, {"name": "KANIKO_NO_PUSH", "value": "true"}]
    )
    with pytest.raises(ConfigError) as refused:
        job(section(kaniko_config=config))
    assert refused.value.message == (
        "builder.kaniko-config.spec.template.spec.containers[0].env[1]: KANIKO_NO_PUSH is not to be given here:"
        " an image that is not pushed is lost with its pod"
    )


def test_kaniko_is_not_to_end_well_with_the_digest_of_what_a_registry_did_not_take() -> None:
    made = job(section(kaniko_config=container(args=["--push-ignore-immutable-tag-errors"])))
    found = [argument for argument in arguments(made) if "immutable" in argument]
    assert found == ["--push-ignore-immutable-tag-errors=false"]
    assert not [argument for argument in arguments(job()) if "immutable" in argument]


def test_target_and_platform_of_the_request_win_since_they_are_in_the_source_hash() -> None:
    config = container(args=["--target=other", "--custom-platform=linux/386"])
    made = job(section(kaniko_config=config), inputs(target="serve", platform="linux/amd64"))
    assert "--target=serve" in arguments(made)
    assert "--custom-platform=linux/amd64" in arguments(made)
    assert not {"--target=other", "--custom-platform=linux/386"} & set(arguments(made))


def test_value_of_a_request_comes_after_the_configs_since_kaniko_takes_the_last() -> None:
    config = container(args=["--build-arg=A=config", "--label=a=config"])
    found = arguments(
        job(
            section(kaniko_config=config),
            inputs(build_args={"A": "request"}, labels={"a": "request"}),
        )
    )
    assert found.index("--build-arg=A=config") < found.index("--build-arg=A=request")
    assert found.index("--label=a=config") < found.index("--label=a=request")


# --- How the context reaches the pod ---


def test_s3_of_aws_needs_the_region_alone() -> None:
    assert variables(job(environment=AWS)) == {"container": "kube", "AWS_REGION": "eu-central-1"}


def test_endpoint_of_another_s3_is_passed_on_with_its_path_style() -> None:
    assert variables(job(endpoint="http://seaweed:8333")) == {
        "container": "kube",
        "AWS_REGION": "us-east-1",
        "S3_ENDPOINT": "http://seaweed:8333",
        "S3_FORCE_PATH_STYLE": "true",
    }


@pytest.mark.parametrize("store", [S3, GCS, BLOB])
def test_signed_url_comes_from_a_secret_and_is_all_that_the_pod_gets(store: str) -> None:
    builder = section(build_context_store=store, context_access="signed")
    made = job(builder, context_secret="job-context")
    assert arguments(made)[4:7] == [
        "--context=$(IMAGEMILL_CONTEXT_URL)",
        "--context-sub-path=context",
        "--dockerfile=../Dockerfile",
    ]
    url = {"secretKeyRef": {"name": "job-context", "key": "url"}}
    assert variables(made) == {"container": "kube", "IMAGEMILL_CONTEXT_URL": url}
    assert "volumes" not in pod_spec(made)


@pytest.mark.parametrize(
    ("store", "access", "endpoint", "signed"),
    [
        (S3, None, None, True),
        (S3, None, "https://s3.example.com", True),
        (S3, None, "http://minio:9000", False),
        (S3, "identity", None, False),
        (GCS, None, None, True),
        (BLOB, None, None, False),
        (BLOB, "signed", None, True),
    ],
)
def test_contexts_are_signed_for_where_that_needs_nothing_more(
    store: str, access: str | None, endpoint: str | None, signed: bool
) -> None:
    assert signs(section(build_context_store=store, context_access=access), endpoint) is signed


def test_kaniko_cannot_be_given_a_url_without_tls() -> None:
    with pytest.raises(ConfigError, match="Kaniko reads no URL without TLS"):
        signs(section(context_access="signed"), "http://minio:9000")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            'Get "https://b.s3.amazonaws.com/k?X-Amz-Credential=AK%2F1&X-Amz-Date=1&X-Amz-Signature=0a1b":',
            'Get "https://b.s3.amazonaws.com/k?X-Amz-Credential=***&X-Amz-Date=1&X-Amz-Signature=***":',
        ),
        (
            "https://a.blob.core.windows.net:443/c/k?se=1&sig=a%2Bb%3D",
            "https://a.blob.core.windows.net:443/c/k?se=1&sig=***",
        ),
        (
            "https://storage.googleapis.com/k?X-Goog-Signature=00ff EOF",
            "https://storage.googleapis.com/k?X-Goog-Signature=*** EOF",
        ),
        ("a sig=nature that is none", "a sig=nature that is none"),
    ],
)
def test_signature_of_a_url_is_in_no_line(line: str, shown: str) -> None:
    assert without_signatures(line) == shown


def test_pod_trusts_whom_the_worker_trusts() -> None:
    made = job(certificates=("authorities.pem", "registry.example.com", "other.example.com:5000"))
    mounted = {
        mount["mountPath"]: volume["secret"]
        for mount in executor(made)["volumeMounts"]
        for volume in pod_spec(made)["volumes"]
        if mount["name"] == volume["name"] and mount["readOnly"]
    }
    secret = f"{made['metadata']['name']}-certificates"
    assert own_secrets(made) == [secret]
    assert {each["secretName"] for each in mounted.values()} == {secret}
    assert [item["key"] for item in mounted["/kaniko/authorities"]["items"]] == ["authorities.pem"]
    assert variables(made)["SSL_CERT_DIR"] == "/kaniko/ssl/certs:/kaniko/authorities"
    assert {
        "--registry-certificate=registry.example.com=/kaniko/certs.d/registry.example.com",
        "--registry-certificate=other.example.com:5000=/kaniko/certs.d/other.example.com_5000",
    } < set(arguments(made))


def test_certificates_are_those_of_the_operator_and_of_the_builds_registries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "company.pem").write_bytes(b"the company's")
    for host in ("r.example.com", "other.example.com:5000", "unasked.example.com"):
        (tmp_path / "certs.d" / host).mkdir(parents=True)
        (tmp_path / "certs.d" / host / "ca.crt").write_bytes(host.encode())
    monkeypatch.setattr(authorities, "_CERTS_D", (tmp_path / "certs.d",))
    monkeypatch.delenv("IMAGEMILL_AUTHORITIES", raising=False)
    assert certificates(["r.example.com"]) == {"r.example.com": b"r.example.com"}
    monkeypatch.setenv("IMAGEMILL_AUTHORITIES", str(tmp_path / "company.pem"))
    found = certificates(["other.example.com:5000", "docker.io"])
    assert secret_data(found) == {
        "authorities.pem": b"the company's",
        "other.example.com_5000": b"other.example.com:5000",
    }


def test_cloud_storage_is_named_by_its_uri() -> None:
    made = job(section(build_context_store=GCS), environment=GCP)
    assert f"--context={GCS}/{HASH}.tar.gz" in arguments(made)
    assert variables(made) == {"container": "kube"}


def test_blob_storage_is_read_with_the_accounts_key() -> None:
    made = job(
        section(build_context_store=BLOB, secret_name="storage", secret_key="key"),
        environment=AzureEnvironment(),
    )
    assert f"--context={BLOB}/{HASH}.tar.gz" in arguments(made)
    assert variables(made)["AZURE_STORAGE_ACCESS_KEY"] == {
        "secretKeyRef": {"name": "storage", "key": "key"}
    }


AGENTS_KEY = {"secretKeyRef": {"name": "azure-storage-access-key", "key": "password"}}


@pytest.mark.parametrize(
    "keys", [{}, {"secret_name": "registry-login", "secret_key": ".dockerconfigjson"}]
)
def test_key_of_blob_storage_is_that_of_the_agent_if_there_is_no_other(
    keys: dict[str, str],
) -> None:
    made = job(section(build_context_store=BLOB, **keys))
    assert variables(made)["AZURE_STORAGE_ACCESS_KEY"] == AGENTS_KEY


@pytest.mark.parametrize(
    "keys",
    [
        {"secret_name": "storage", "secret_key": "key"},
        {"kaniko_config": {"spec": {"template": {"spec": {"containers": [
            {"envFrom": [{"secretRef": {"name": "storage"}}]}]}}}}},
    ],
)  # fmt: skip
def test_agents_key_is_not_taken_where_the_config_has_another(keys: dict[str, Any]) -> None:
    made = job(section(build_context_store=BLOB, **keys))
    assert variables(made).get("AZURE_STORAGE_ACCESS_KEY") != AGENTS_KEY


def test_key_of_blob_storage_may_come_from_the_config() -> None:
    reference = {"secretKeyRef": {"name": "storage", "key": "key"}}
    config = container(env=[{"name": "AZURE_STORAGE_ACCESS_KEY", "valueFrom": reference}])
    made = job(section(build_context_store=BLOB, kaniko_config=config))
    assert variables(made)["AZURE_STORAGE_ACCESS_KEY"] == reference


def test_shared_volume_has_a_place_of_its_own_in_the_pod() -> None:
    builder = section(build_context_store="file:///mnt/a b", context_volume_claim="contexts")
    made = job(builder, uri=f"file:///mnt/a%20b/{HASH}.tar.gz")
    assert f"--context=tar:///kaniko/contexts/{HASH}.tar.gz" in arguments(made)
    assert executor(made)["volumeMounts"] == [
        {
            "name": "imagemill-context",
            "mountPath": f"/kaniko/contexts/{HASH}.tar.gz",
            "readOnly": True,
            "subPath": f"{HASH}.tar.gz",
        }
    ]
    assert pod_spec(made)["volumes"] == [
        {"name": "imagemill-context", "persistentVolumeClaim": {"claimName": "contexts"}}
    ]


def test_folder_of_the_workers_that_no_pod_can_reach_is_refused() -> None:
    with pytest.raises(ValidationError, match="which build pods cannot reach"):
        section(build_context_store="file:///mnt/contexts")


BASELINE = {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
            "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}  # fmt: skip
"""What Pod Security's level "baseline" allows to be added at all."""


def test_root_in_the_pod_may_do_what_images_need_and_no_more() -> None:
    security = executor(job())["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"]["drop"] == ["ALL"]
    assert set(security["capabilities"]["add"]) < BASELINE


def test_the_executors_switches_are_on_and_can_be_turned_off() -> None:
    given = switches(job())
    assert given["FF_KANIKO_COPY_AS_ROOT"] == given["FF_KANIKO_CROSS_REPO_MOUNT"] == "true"
    off = container(env=[{"name": "FF_KANIKO_COPY_AS_ROOT", "value": "false"}])
    assert switches(job(section(kaniko_config=off))) == given | {"FF_KANIKO_COPY_AS_ROOT": "false"}
    assert switches(job(section(kaniko_features="none"))) == {}


def test_the_config_may_allow_the_pod_more() -> None:
    more = {"capabilities": {"add": ["SYS_PTRACE"]}, "allowPrivilegeEscalation": True}
    security = executor(job(section(kaniko_config=container(securityContext=more))))[
        "securityContext"
    ]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["SYS_PTRACE"]}
    assert security["allowPrivilegeEscalation"]
    for needed in ({"privileged": True}, {"capabilities": {"add": ["SYS_ADMIN"]}}):
        given = section(kaniko_config=container(securityContext=needed))
        assert "allowPrivilegeEscalation" not in executor(job(given))["securityContext"]


def test_s3_store_has_the_region_of_an_ecr_destination() -> None:
    made = job(
        section(destination="123456789012.dkr.ecr.eu-west-3.amazonaws.com/team/model"),
        uri=f"s3://bucket/{HASH}.tar.gz",
    )
    assert variables(made)["AWS_REGION"] == "eu-west-3"


def test_what_kaniko_leaves_of_its_download_is_not_in_the_context(tmp_path: Path) -> None:
    """Kaniko downloads from S3 into the folder that it unpacks into, and leaves the download
    there.
    """
    source, unpacked = tmp_path / "source", tmp_path / "unpacked"
    source.mkdir()
    (source / "Dockerfile").write_text("FROM scratch\nCOPY . .\n")
    (source / ".dockerignore").write_text("Dockerfile\n")
    (source / "model").write_text("weights")
    packed = io.BytesIO()
    context.pack(source, None, packed, Quiet())
    unpacked.mkdir()
    (unpacked / "context.tar.gz").write_bytes(packed.getvalue())
    with tarfile.open(unpacked / "context.tar.gz") as tar:
        tar.extractall(unpacked, filter="data")

    flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments(job()))
    # As its `resolveSourceContext` and `resolveDockerfilePath` do.
    folder = unpacked / flags["context-sub-path"]
    dockerfile = (folder / flags["dockerfile"]).resolve()
    assert sorted(path.name for path in folder.iterdir()) == [".dockerignore", "model"]
    assert dockerfile.read_text() == "FROM scratch\nCOPY . .\n"
    assert dockerfile.with_name("Dockerfile.dockerignore").is_file()


# --- What the pod pushes with ---

SERVICE_ACCOUNT = pod(serviceAccountName="imagemill-build")
OWN_MOUNT = container(volumeMounts=[{"name": "own", "mountPath": "/kaniko/.docker/"}])
OWN_VARIABLE = container(env=[{"name": "DOCKER_CONFIG", "value": "/own"}])


@pytest.mark.parametrize(
    ("destination", "environment", "fields", "needed"),
    [
        (REGISTRY, LocalEnvironment(), {}, True),
        (ECR, AWS, {}, True),
        (ECR, AWS, {"kaniko_config": SERVICE_ACCOUNT}, False),
        (GAR, GCP, {"kaniko_config": SERVICE_ACCOUNT}, False),
        ("gcr.io/example-project/models", GCP, {"kaniko_config": SERVICE_ACCOUNT}, False),
        (ACR, AzureEnvironment(), {"kaniko_config": SERVICE_ACCOUNT}, False),
        (REGISTRY, AWS, {"kaniko_config": SERVICE_ACCOUNT}, True),
        (REGISTRY, LocalEnvironment(), {"kaniko_config": OWN_MOUNT}, False),
        (REGISTRY, LocalEnvironment(), {"kaniko_config": OWN_VARIABLE}, False),
        (REGISTRY, LocalEnvironment(), {"secret_name": "s", "secret_key": "config.json"}, False),
        (ECR, AWS, {"secret_name": "s", "secret_key": "credentials"}, False),
        (GAR, GCP, {"secret_name": "s", "secret_key": "key.json"}, False),
        (GAR, GCP, {"secret_name": "s", "secret_key": ".dockerconfigjson"}, False),
        (REGISTRY, AWS, {"secret_name": "s", "secret_key": "credentials"}, True),
        (
            ACR,
            AzureEnvironment(),
            {"build_context_store": BLOB, "secret_name": "s", "secret_key": "key"},
            True,
        ),
        (ACR, AzureEnvironment(), {"secret_name": "s", "secret_key": "config.json"}, False),
    ],
)
def test_build_brings_credentials_where_the_pod_has_none(
    destination: str, environment: Environment, fields: dict[str, Any], needed: bool
) -> None:
    builder = section(destination=destination, **fields)
    image = ImageReference.parse(destination).with_tag(HASH)
    assert needs_docker_secret(builder, environment, image) is needed


@pytest.mark.parametrize(
    ("destination", "environment", "key", "path", "file", "names"),
    [
        (
            REGISTRY,
            LocalEnvironment(),
            "config.json",
            "/kaniko/.docker",
            "config.json",
            {"DOCKER_CONFIG"},
        ),
        (
            ECR,
            AWS,
            ".dockerconfigjson",
            "/kaniko/.docker",
            "config.json",
            {"DOCKER_CONFIG", "AWS_REGION"},
        ),
        (ECR, AWS, "key", "/root/.aws", "credentials", {"AWS_REGION"}),
        (REGISTRY, AWS, "key", "/root/.aws", "credentials", {"AWS_REGION"}),
        (GAR, GCP, "key", "/kaniko/.config/gcloud", "key.json", {"GOOGLE_APPLICATION_CREDENTIALS"}),
        (ACR, AzureEnvironment(), "key", "/kaniko/.docker", "config.json", {"DOCKER_CONFIG"}),
    ],
)
def test_secret_of_the_user_is_mounted_where_kaniko_looks(
    destination: str, environment: Environment, key: str, path: str, file: str, names: set[str]
) -> None:
    builder = section(destination=destination, secret_name="login", secret_key=key)
    made = job(
        builder,
        inputs(image=ImageReference.parse(destination).with_tag(HASH)),
        environment=environment,
    )
    volume = pod_spec(made)["volumes"][0]
    assert volume["secret"]["secretName"] == "login"
    assert volume["secret"]["items"] == [{"key": key, "path": file}]
    assert executor(made)["volumeMounts"] == [
        {"name": volume["name"], "mountPath": path, "readOnly": True}
    ]
    assert variables(made).keys() == names | {"container"}


def test_secret_of_the_build_is_a_docker_config() -> None:
    made = job(docker_secret="own")
    assert variables(made)["DOCKER_CONFIG"] == "/kaniko/.docker"
    assert executor(made)["volumeMounts"][0]["mountPath"] == "/kaniko/.docker"
    assert pod_spec(made)["volumes"][0]["secret"] == {
        "secretName": "own",
        "defaultMode": 0o400,
        "items": [{"key": ".dockerconfigjson", "path": "config.json"}],
    }


# --- What is no Job is refused ---


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        (pod(tolerations=[{"key": "a", "tolerationSeconds": "30"}]),
         'spec.template.spec.tolerations[0].tolerationSeconds: found "30", expected a number without quotes', ""),
        (pod(nodeSelector={"gpu": True}),
         "spec.template.spec.nodeSelector.gpu: found a boolean, expected text", "put it in quotes"),
        (pod(volumes={"name": "a"}), "spec.template.spec.volumes: found a mapping, expected a list", ""),
        (pod(nodeselector={"a": "b"}),
         "spec.template.spec.nodeselector: found a key that is unknown here, expected one of Kubernetes'",
         "did you mean nodeSelector?"),
        (pod(node_selector={"a": "b"}),
         "spec.template.spec.node_selector: found a key that is unknown here, expected one of Kubernetes'",
         "did you mean nodeSelector?"),
        (container(nodeSelector={"a": "b"}),
         "spec.template.spec.containers[0].nodeSelector: found a key that is unknown here, expected one of"
         " Kubernetes'", "nodeSelector belongs below builder.kaniko-config.spec.template.spec"),
        (pod(containers=[{}, {"image": "a"}]),
         "spec.template.spec.containers[1].name: found nothing, expected a value", ""),
        (pod(tolerations=[None]), "spec.template.spec.tolerations[0]: found nothing, expected a mapping", ""),
        ({"metadata": "a"}, 'metadata: found "a", expected a mapping', ""),
        ({"spec": {"activeDeadlineSeconds": 1.5}},
         "spec.activeDeadlineSeconds: found a number, expected a number without quotes", ""),
    ],
)  # fmt: skip
def test_config_that_makes_no_job_is_refused_where_it_is_wrong(
    config: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        job(section(kaniko_config=config))
    assert refused.value.message == f"builder.kaniko-config.{message}"
    assert refused.value.hint == hint


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        job(section(kaniko_config=pod(tolerations="a", hostNetwork="yes")))
    assert len(refused.value.message.splitlines()) == 2


def test_refusal_does_not_repeat_what_may_be_a_secret() -> None:
    config = container(envFrom=[{"secretRef": "hunter2!"}])
    with pytest.raises(ConfigError) as refused:
        job(section(kaniko_config=config))
    assert "hunter2" not in str(refused.value)


# --- The new keys of the config ---


@pytest.mark.parametrize(
    "fields",
    [
        {"scheduling-timeout": "5m"},
        {"failed-job-retention": "-1"},
        {"memory-ceiling": "16 GB"},
        {"context-volume-claim": "A"},
        {"push-role": "imagemill-push"},
        {"push-role": "arn:aws:iam::123456789012:user/imagemill"},
    ],
)
def test_value_of_another_form_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        section(**fields)


def test_config_goes_through_json_unchanged() -> None:
    builder = section(
        scheduling_timeout="60",
        failed_job_retention=0,
        memory_ceiling="32Gi",
        context_volume_claim="c",
    )
    assert (builder.scheduling_timeout, builder.failed_job_retention) == (60, 0)
    assert KanikoBuilder.model_validate(builder.model_dump(mode="json")) == builder


# --- imagemill kaniko job ---


class Printed:
    """Runs the command in this process, where it can open no socket."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *given_arguments: str | Path) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["imagemill", *map(str, given_arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err


@pytest.fixture
def imagemill(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Printed:
    # Threads of tests before may still ask for what they have watched.
    others, connect = {*threading.enumerate()} - {threading.current_thread()}, socket.socket.connect

    def refuse(asking: socket.socket, address: Any) -> None:
        if threading.current_thread() not in others:
            raise AssertionError("the command asked the network")
        connect(asking, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("IMAGEMILL_CONFIG", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    return Printed(monkeypatch, capsys)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY a /a\n")
    (folder / "a").write_text("a")
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    builder = {"type": "kaniko", "destination": REGISTRY, "build-context-store": S3}
    file.write_text(yaml.safe_dump({"builder": builder}))
    return file


OPTIONS = (
    "--build-arg",
    "VERSION=2",
    "--target",
    "serve",
    "--platform",
    "linux/arm64",
    "--label",
    "a=b",
)


def test_command_prints_the_job_with_the_real_source_hash(
    imagemill: Printed, source: Path, config: Path
) -> None:
    _, source_hash, _ = imagemill("hash", source, "--config", config, *OPTIONS)
    code, out, err = imagemill("kaniko", "job", source, "--config", config, *OPTIONS)
    printed, source_hash = yaml.safe_load(out), source_hash.strip()
    assert (code, err) == (0, "")
    assert list(printed) == ["apiVersion", "kind", "metadata", "spec"]
    assert printed["metadata"]["name"].startswith(f"imagemill-build-{source_hash[:12]}-")
    assert f"--destination={REGISTRY}:{source_hash}" in arguments(printed)
    assert "--context=$(IMAGEMILL_CONTEXT_URL)" in arguments(printed)
    assert {"--build-arg=VERSION=2", "--target=serve", "--label=a=b"} < set(arguments(printed))
    assert f"--label=dev.imagemill.source-hash={source_hash}" in arguments(printed)
    assert printed["spec"]["activeDeadlineSeconds"] == 1860


def test_command_takes_another_destination_and_names_the_secrets(
    imagemill: Printed, source: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:8333")
    code, out, _ = imagemill(
        "kaniko",
        "job",
        source,
        "--config",
        config,
        "-d",
        "other.example/x",
        "--secret",
        "id=pip",
        "--timeout",
        "60",
    )
    printed = yaml.safe_load(out)
    assert code == 0
    assert any(
        argument.startswith("--destination=other.example/x:") for argument in arguments(printed)
    )
    name = printed["metadata"]["name"]
    assert [volume["secret"]["secretName"] for volume in pod_spec(printed)["volumes"]] == [
        f"{name}-registry",
        f"{name}-build-secrets",
    ]
    assert variables(printed)["S3_ENDPOINT"] == "http://127.0.0.1:8333"
    assert printed["spec"]["activeDeadlineSeconds"] == 120


def test_command_passes_on_what_the_workers_have_in_their_environment(
    imagemill: Printed, source: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(config.read_text().replace(S3, GCS))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:4443")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:8333")
    monkeypatch.setenv("IMAGEMILL_INSECURE_REGISTRIES", "a.example:5000, b.example")
    _, out, _ = imagemill("kaniko", "job", source, "--config", config)
    printed = yaml.safe_load(out)
    assert variables(printed)["STORAGE_EMULATOR_HOST"] == "http://127.0.0.1:4443"
    assert "S3_ENDPOINT" not in variables(printed)
    found = [argument for argument in arguments(printed) if argument.startswith("--insecure")]
    assert found == ["--insecure-registry=a.example:5000", "--insecure-registry=b.example"]


def test_command_says_what_is_wrong_with_the_config(
    imagemill: Printed, source: Path, tmp_path: Path
) -> None:
    code, out, err = imagemill("kaniko", "job", source)
    assert (code, out) == (2, "")
    assert "builder.type is auto, which makes no Job" in err
    file = tmp_path / "config.yaml"
    file.write_text(
        f"builder: {{type: kaniko, destination: {REGISTRY}, build-context-store: 'file:///mnt'}}\n"
    )
    code, out, err = imagemill("kaniko", "job", source, "--config", file)
    assert (code, out) == (2, "")
    assert "builder.context-volume-claim" in err


def test_command_refuses_an_image(imagemill: Printed, config: Path) -> None:
    code, _, err = imagemill("kaniko", "job", "docker-image://busybox", "--config", config)
    assert code == 2
    assert "is an image" in err


def test_the_job_is_made_without_kubernetes_own_package() -> None:
    """`job_for` is pure: only `validation` needs the client's models."""
    made = job_for(section(), inputs(), f"{S3}/{HASH}.tar.gz")
    assert made == valid_job(section(), inputs(), f"{S3}/{HASH}.tar.gz")


def test_layers_are_kept_where_the_config_says_unless_its_job_says_otherwise() -> None:
    wanted = inputs(layer_cache=ImageReference.parse("a.io/cache/team:key"))
    assert {"--cache=true", "--cache-repo=a.io/cache/team"} <= set(arguments(job(wanted=wanted)))
    assert not [each for each in arguments(job()) if each.startswith("--cache")]
    own = section(kaniko_config=container(args=["--cache-repo=b.io/x", "--cache=false"]))
    found = [each for each in arguments(job(own, wanted)) if each.startswith("--cache")]
    assert found == ["--cache-repo=b.io/x", "--cache=false"]


@pytest.mark.parametrize("field", ["ssh", "cache_from"])
def test_what_kaniko_has_not_is_refused(field: str) -> None:
    with pytest.raises(UserError, match=f"Kaniko has no {field.replace('_', '-')}"):
        check_builder(BuildRequest.parse({"source": "/src", field: ["x"]}), "kaniko")
    check_builder(BuildRequest.parse({"source": "/src", field: ["x"]}), "docker")
