"""Whether the cluster that Kaniko is to build in answers, and lets us do there what a build
does.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from imagemill.builders.kaniko.overlay import pod_spec
from imagemill.config import KanikoBuilder
from imagemill.doctor.examination import Case
from imagemill.doctor.findings import Finding, Verdict, checked, failure
from imagemill.errors import ImagemillError
from imagemill.permissions.kubernetes import rule
from imagemill.place import machine
from imagemill.ports import BuildInputs
from imagemill.reference import ImageReference

if TYPE_CHECKING:
    from imagemill.builders.kaniko.api import Cluster

_NODES = (
    "kubectl get nodes -o jsonpath='{range .items[*]}{.metadata.name} "
    '{.status.runtimeHandlers[*].features.userNamespaces}{"\\n"}{end}\''
)


def examine(case: Case) -> Iterator[Finding]:
    """All findings of the cluster. With a service, its workers may be in a cluster that this
    machine is not in.
    """
    from imagemill.builders.kaniko.api import connect  # for those alone who have Kubernetes' client

    lacking = Verdict.WARNING if case.machine.client else Verdict.FAILED
    try:
        cluster = connect(case.machine.environment)
        missing = cluster.missing_permissions()
    except ImagemillError as error:
        yield failure("cluster", error, lacking)
        return
    yield Finding(
        "cluster", Verdict.OK, f"answers at {cluster.host}; namespace: {cluster.namespace}"
    )
    for (resource, group, needed), permissions in groupby(
        missing, lambda found: (found.resource, found.group, found.needed)
    ):
        verbs = [permission.verb for permission in permissions]
        yield Finding(
            "cluster permissions",
            lacking if needed else Verdict.WARNING,
            f"{machine()} may not {', '.join(verbs)} {resource} in the namespace {cluster.namespace}"
            + ("" if needed else ": builds work, but cannot say why a pod does not start"),
            f"grant this to the service account of {machine()}",
            (rule(group, resource, verbs),),
        )
    if not missing:
        yield Finding("cluster permissions", Verdict.OK, "all that a build needs is granted")
    builder = case.config.builder
    if (
        isinstance(builder, KanikoBuilder)
        and pod_spec(builder.kaniko_config).get("hostUsers") is False
    ):
        yield checked("user namespaces", lambda: _host_users(case, builder, cluster), lacking)


def _host_users(case: Case, builder: KanikoBuilder, cluster: "Cluster") -> Finding:
    """Whether the API server keeps `hostUsers`: one without the feature drops it in silence."""
    from imagemill.builders.kaniko.api import JOBS
    from imagemill.builders.kaniko.job import circumstances_of
    from imagemill.builders.kaniko.validation import valid_job

    image = ImageReference.parse_destination(builder.destination).with_tag("probe")
    inputs = BuildInputs(image, source_hash="0" * 64, build_id="doctor")
    facts = circumstances_of(
        builder, case.config.environment, inputs, has_login=False, remaining=3600
    )
    job = valid_job(builder, inputs, f"{builder.build_context_store}/probe.tar.gz", facts)
    created = cluster.create(JOBS, job, dry_run=True)
    assert created is not None  # no source has the hash that names it
    if pod_spec(created).get("hostUsers") is not False:
        return Finding(
            "user namespaces",
            Verdict.WARNING,
            f"{cluster.host} drops hostUsers: false of kaniko-config without a word: root in a build"
            " pod is root on its node",
            "it takes Kubernetes 1.33, or the feature gate UserNamespacesSupport",
        )
    return Finding(
        "user namespaces",
        Verdict.OK,
        f"{cluster.host} keeps hostUsers: false of kaniko-config; whether the nodes' runtimes do,"
        f" which we may not see, is shown by\n{_NODES}",
    )
