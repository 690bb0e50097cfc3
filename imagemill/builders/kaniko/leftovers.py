"""What builds have left in the cluster whose worker died: their Jobs, with pods and Secrets."""

from collections.abc import Collection

from imagemill.builders.kaniko.api import JOBS, PODS, SECRETS, Cluster, Object
from imagemill.builders.kaniko.failures import has_failed
from imagemill.builders.kaniko.job import BUILD_ID, IMAGE, own_secrets
from imagemill.builders.kaniko.watch import SELECTOR, owner_of
from imagemill.ports import Over


def remove(
    cluster: Cluster, over: Over, *, labels: str = SELECTOR, spared: Collection[str] = ()
) -> set[str]:
    """Delete the Jobs that `labels` select whose builds are over, with all that they own.

    Of those that have failed, which stay to be looked at, only the Secrets go; returns their uids,
    and does nothing about those in `spared`. The executor's end tells failure, since the Job's own
    condition comes a second or two later.
    """
    jobs = [
        job
        for job in cluster.list(JOBS, labels=labels)["items"]
        if "deletionTimestamp" not in job["metadata"] and over(*_made_for(job))
    ]
    pods = cluster.list(PODS, labels=labels)["items"] if jobs else []
    failed = set()
    for job in jobs:
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        if not has_failed(job, [pod for pod in pods if owner_of(pod, "Job")[1] == uid]):
            cluster.delete(JOBS, name, uid)
            continue
        failed.add(uid)
        for secret in () if uid in spared else own_secrets(job):
            cluster.delete(SECRETS, secret)
    return failed


def _made_for(job: Object) -> tuple[str, str]:
    noted = job["metadata"].get("annotations") or {}
    return noted.get(BUILD_ID, ""), noted.get(IMAGE, "")
