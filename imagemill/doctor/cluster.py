"""Whether the cluster that Kaniko is to build in answers, and lets us do there what a build
does.
"""

from collections.abc import Iterator
from itertools import groupby

from imagemill.doctor.examination import Case
from imagemill.doctor.findings import Finding, Verdict, failure
from imagemill.errors import ImagemillError
from imagemill.permissions.kubernetes import rule
from imagemill.place import machine


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
