"""What `kaniko-config` makes of the Job: golden files, and the rules by which it is laid over it.

`python tests/unit/builders/kaniko/test_overlay.py` writes the golden files anew, to be read before they are
committed.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from imagemill.builders.kaniko.job import Circumstances, job_name
from imagemill.builders.kaniko.overlay import executor, lay, pod_spec
from imagemill.builders.kaniko.pod_credentials import needs_docker_secret
from imagemill.builders.kaniko.validation import valid_job
from imagemill.config import KanikoBuilder, load
from imagemill.ports import BuildInputs
from imagemill.reference import ImageReference

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name.removesuffix(".config.yaml") for path in GOLDEN.glob("*.config.yaml"))
HASH = "0123456789abcdef" * 4


def made(case: str) -> dict[str, Any]:
    """The Job of the case's config, as the builder would send it."""
    config = load(GOLDEN / f"{case}.config.yaml").config
    section, environment = config.builder, config.environment
    assert isinstance(section, KanikoBuilder)
    inputs = BuildInputs(
        image=ImageReference.parse_destination(section.destination).with_tag(HASH),
        platform=section.platform,
        build_args={"VERSION": "1"},
        labels={"org.opencontainers.image.revision": "0f1e2d3c"},
        source_hash=HASH,
        build_id="5c1d1c5e-4a34-4c3f-9f0e-5a1a5a2b1c0d",
    )
    secret = (
        job_name(section, inputs)
        if needs_docker_secret(section, environment, inputs.image)
        else None
    )
    circumstances = Circumstances(environment=environment, deadline=1799.5, docker_secret=secret)
    return valid_job(section, inputs, f"{section.build_context_store}/{HASH}.tar.gz", circumstances)


def golden(case: str) -> Path:
    return GOLDEN / f"{case}.job.yaml"


# --- Golden files ---


@pytest.mark.parametrize("case", CASES)
def test_job_is_as_in_its_golden_file(case: str) -> None:
    assert made(case) == yaml.safe_load(golden(case).read_text())


def test_all_golden_files_have_a_config() -> None:
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(
        f"{case}.{kind}.yaml" for case in CASES for kind in ("config", "job")
    )
    assert len(CASES) >= 10


# --- The rules ---


def job(pod: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": pod}}}


def laid(below: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """The pod of a Job with another one laid over it."""
    return pod_spec(lay(job(below), job(over)))


def container(below: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    return executor(lay(job({"containers": [below]}), job({"containers": [over]})))


def test_first_container_is_the_executor_whatever_it_is_called() -> None:
    pod = laid(
        {"containers": [{"name": "kaniko", "image": "a", "args": []}]},
        {"containers": [{"name": "build", "tty": True}, {"name": "kaniko", "image": "b"}]},
    )
    assert pod["containers"] == [
        {"name": "build", "image": "a", "args": [], "tty": True},
        {"name": "kaniko", "image": "b"},
    ]


def test_containers_beside_the_executor_stay_and_are_merged_by_name() -> None:
    pod = laid(
        {"containers": [{"args": []}, {"name": "a", "args": ["x", "y"]}, {"name": "b"}]},
        {"containers": [{}, {"name": "a", "args": ["z"], "tty": True}, {"name": "c"}]},
    )
    assert pod["containers"] == [
        {"args": []},
        {"name": "a", "args": ["z"], "tty": True},
        {"name": "b"},
        {"name": "c"},
    ]


def test_variable_is_replaced_as_a_whole() -> None:
    below = {
        "args": [],
        "env": [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "B"},
        ],
    }
    over = {"env": [{"name": "C", "value": "3"}, {"name": "A", "value": "1"}]}
    assert container(below, over)["env"] == [
        {"name": "A", "value": "1"},
        {"name": "B"},
        {"name": "C", "value": "3"},
    ]


def test_volume_is_replaced_as_a_whole() -> None:
    pod = laid(
        {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
        {
            "volumes": [
                {"name": "w", "emptyDir": {"sizeLimit": 1000}},
                {"name": "v", "emptyDir": {}},
            ]
        },
    )
    assert pod["volumes"] == [
        {"name": "v", "emptyDir": {}},
        {"name": "w", "emptyDir": {"sizeLimit": "1000"}},
    ]


def test_mounts_of_one_path_are_one_mount() -> None:
    below = {"args": [], "volumeMounts": [{"name": "v", "mountPath": "/a", "readOnly": True}]}
    over = {"volumeMounts": [{"name": "w", "mountPath": "/a/"}, {"name": "v", "mountPath": "/a/b"}]}
    assert container(below, over)["volumeMounts"] == [
        {"name": "w", "mountPath": "/a/", "readOnly": True},
        {"name": "v", "mountPath": "/a/b"},
    ]


def test_tolerations_are_added_once_each() -> None:
    spot, gpu = {"key": "spot", "operator": "Exists"}, {"key": "gpu", "operator": "Exists"}
    assert laid({"tolerations": [spot]}, {"tolerations": [gpu]})["tolerations"] == [gpu, spot]
    assert laid({"tolerations": [spot]}, {"tolerations": [gpu, spot]})["tolerations"] == [gpu, spot]


@pytest.mark.parametrize(
    ("given", "stays"),
    [
        ({"key": "lost", "effect": "NoExecute", "tolerationSeconds": 600}, False),
        ({"key": "lost"}, False),
        ({"key": "lost", "effect": ""}, False),
        ({"key": "lost", "effect": "NoSchedule"}, True),
        ({"key": "other", "effect": "NoExecute"}, True),
        ({"operator": "Exists"}, True),
    ],
)
def test_toleration_of_the_same_taint_is_replaced(given: dict[str, Any], stays: bool) -> None:
    ours = {"key": "lost", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
    assert laid({"tolerations": [ours]}, {"tolerations": [given]})["tolerations"] == [
        given,
        *[ours] * stays,
    ]


def test_tolerations_of_several_values_of_a_taint_all_stay() -> None:
    both = [{"key": "gpu", "value": value, "effect": "NoSchedule"} for value in ("a", "b")]
    assert laid({"tolerations": []}, {"tolerations": both})["tolerations"] == both


def test_pull_secrets_are_merged_by_name() -> None:
    pod = laid(
        {"imagePullSecrets": [{"name": "a"}]}, {"imagePullSecrets": [{"name": "b"}, {"name": "a"}]}
    )
    assert pod["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]


def test_other_lists_are_replaced() -> None:
    assert container({"args": [], "command": ["a", "b"]}, {"command": ["c"]})["command"] == ["c"]


def test_null_deletes_a_key() -> None:
    pod = laid(
        {"securityContext": {"a": 1}, "nodeSelector": {"x": "1", "y": "2"}},
        {"securityContext": None, "nodeSelector": {"x": None}, "hostname": None},
    )
    assert pod == {"nodeSelector": {"y": "2"}}


@pytest.mark.parametrize("over", [
    {"metadata": None, "spec": None},
    {"spec": {"template": None}},
    {"spec": {"template": {"spec": {"containers": None, "volumes": None}}}},
    {"spec": {"template": {"spec": {"containers": []}}}},
    {"spec": {"template": {"spec": {"containers": [{"args": None, "env": None, "volumeMounts": None}]}}}},
])  # fmt: skip
def test_what_a_build_needs_is_not_deleted_by_a_key_without_a_value(over: dict[str, Any]) -> None:
    below = job(
        {
            "containers": [{"args": ["--a"], "env": [{"name": "A"}], "volumeMounts": []}],
            "volumes": [],
        }
    )
    below["metadata"] = {"name": "n"}
    assert lay(below, over) == below


@pytest.mark.parametrize(
    ("number", "text"), [(2, "2"), (0.5, "0.5"), (8_000_000_000, "8000000000")]
)
def test_numbers_among_resources_are_quantities(number: float, text: str) -> None:
    resources = container(
        {"args": []}, {"resources": {"limits": {"cpu": number}, "requests": {"cpu": "1"}}}
    )["resources"]
    assert resources == {"limits": {"cpu": text}, "requests": {"cpu": "1"}}


def test_neither_document_is_changed_nor_part_of_the_result() -> None:
    below = job({"containers": [{"args": ["--a"], "env": [{"name": "A"}]}]})
    over = job(
        {"containers": [{"args": ["--b"], "env": [{"name": "B"}]}], "tolerations": [{"key": "k"}]}
    )
    result = lay(below, over)
    pod_spec(result)["tolerations"][0]["key"] = "other"
    executor(result)["env"].append({"name": "C"})
    executor(result)["args"].append("--c")
    assert below == job({"containers": [{"args": ["--a"], "env": [{"name": "A"}]}]})
    assert over == job(
        {"containers": [{"args": ["--b"], "env": [{"name": "B"}]}], "tolerations": [{"key": "k"}]}
    )


if __name__ == "__main__":
    for name in CASES:
        golden(name).write_text(yaml.safe_dump(made(name), sort_keys=False, width=1000))
