"""What the doctor says of the cluster that Kaniko is to build in."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from imagemill.config import KanikoBuilder, LaunchConfig, Loaded
from imagemill.doctor import Finding, Machine, Verdict, examine
from imagemill.registries.docker_config import DockerConfig
from kubernetes_server import KubernetesServer


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubernetesServer]:
    with KubernetesServer(tmp_path) as server:
        yield server


def findings(folder: Path, kubeconfig: Path, **pod: JsonValue) -> dict[str, list[Finding]]:
    """What is found of the cluster, with this in the pod of `kaniko-config`."""
    builder = KanikoBuilder(
        kaniko_config={"spec": {"template": {"spec": pod}}} if pod else {},
        destination="localhost:1/x",
        build_context_store=(folder / "contexts").as_uri(),
        context_volume_claim="contexts",
    )
    place = Machine(
        config=lambda: Loaded(LaunchConfig(builder=builder)),
        destination=None,
        docker_cli=None,
        docker_host=None,
        docker_config=DockerConfig(folder),
        insecure_registries=frozenset(),
        client=None,
        environment={"KUBECONFIG": str(kubeconfig), "HOME": str(folder)},
    )
    found: dict[str, list[Finding]] = {}
    for finding in examine(place):
        found.setdefault(finding.check, []).append(finding)
    return found


def test_a_cluster_that_grants_all_is_fine(cluster: KubernetesServer, tmp_path: Path) -> None:
    found = findings(tmp_path, cluster.kubeconfig)

    assert [finding.verdict for finding in found["cluster"]] == [Verdict.OK]
    assert "namespace: builds" in found["cluster"][0].message
    assert [finding.verdict for finding in found["cluster permissions"]] == [Verdict.OK]


def test_what_is_not_granted_is_named_with_the_rule_that_grants_it(
    cluster: KubernetesServer, tmp_path: Path
) -> None:
    cluster.deny("create", "jobs")
    cluster.deny("delete", "jobs")
    cluster.deny("watch", "events")
    jobs, events = findings(tmp_path, cluster.kubeconfig)["cluster permissions"]

    assert jobs.verdict is Verdict.FAILED
    assert jobs.message == "the worker may not create, delete jobs in the namespace builds"
    assert jobs.grants == ("- {apiGroups: [batch], resources: [jobs], verbs: [create, delete]}",)
    assert events.verdict is Verdict.WARNING
    assert "builds work" in events.message
    assert events.grants == ('- {apiGroups: [""], resources: [events], verbs: [watch]}',)


def test_a_cluster_that_keeps_host_users_is_told_apart_from_one_that_drops_it(
    cluster: KubernetesServer, tmp_path: Path
) -> None:
    (kept,) = findings(tmp_path, cluster.kubeconfig, hostUsers=False)["user namespaces"]
    cluster.drop_field("hostUsers")
    (dropped,) = findings(tmp_path, cluster.kubeconfig, hostUsers=False)["user namespaces"]

    assert kept.verdict is Verdict.OK
    assert "kubectl get nodes -o jsonpath=" in kept.message
    assert dropped.verdict is Verdict.WARNING
    assert "drops hostUsers: false" in dropped.message
    assert cluster.jobs() == []
    assert "user namespaces" not in findings(tmp_path, cluster.kubeconfig, hostUsers=True)


def test_a_cluster_that_refuses_the_job_is_told(cluster: KubernetesServer, tmp_path: Path) -> None:
    cluster.deny_admission("policy.example.com", "pods have users of the host")
    (finding,) = findings(tmp_path, cluster.kubeconfig, hostUsers=False)["user namespaces"]

    assert finding.verdict is Verdict.FAILED
    assert "pods have users of the host" in finding.message


def test_a_cluster_that_does_not_answer_is_told(cluster: KubernetesServer, tmp_path: Path) -> None:
    cluster.fail_next(503, 100)
    (finding,) = findings(tmp_path, cluster.kubeconfig)["cluster"]

    assert finding.verdict is Verdict.FAILED
    assert finding.hint


def test_without_a_cluster_the_way_to_one_is_told(tmp_path: Path) -> None:
    (finding,) = findings(tmp_path, tmp_path / "nothing")["cluster"]

    assert finding.verdict is Verdict.FAILED
    assert "KUBECONFIG" in finding.hint
