"""Builds with Kaniko in a Kubernetes Job, which is named after the source: Kubernetes itself sees
to it that it is one.

A build leaves nothing in its worker's memory that another worker would miss when it takes over: all
stands in the Job.
"""

import math
from collections.abc import Collection
from decimal import Decimal

from kubernetes.utils import parse_quantity

from imagemill.builders import Workplace
from imagemill.builders.kaniko.api import JOBS, PODS, SECRETS, Cluster, Object, connect
from imagemill.builders.kaniko.context_access import endpoint, signer, signs
from imagemill.builders.kaniko.failures import has_failed
from imagemill.builders.kaniko.job import BUILD_ID, IMAGE, job_name, label_value, own_secrets
from imagemill.builders.kaniko.logins import BuildLogins, named_images
from imagemill.builders.kaniko.pod_credentials import takes_docker_config
from imagemill.builders.kaniko.run import attempt
from imagemill.builders.kaniko.task import Task
from imagemill.builders.kaniko.trust import certificates
from imagemill.builders.kaniko.watch import SELECTOR, owner_of
from imagemill.config.model import KanikoBuilder as Section
from imagemill.errors import OperatorError, TransientError
from imagemill.ports import BuildInputs, Over, Progress, Registry, StoredContext

ATTEMPTS = 4
"""The most Jobs that a build may try to have: names that are taken count too."""


class KanikoJobBuilder:
    """Builds and pushes in the worker's own cluster, or in that of its kubeconfig."""

    def __init__(self, place: Workplace, section: Section) -> None:
        self._place, self._section = place, section
        self._looked_at: set[str] = set()

    def build(
        self, inputs: BuildInputs, context: StoredContext, registry: Registry, progress: Progress
    ) -> str:
        """See `Builder.build`. A Job that has failed stays for a while, to be looked at; nothing
        else stays.
        """
        if context.uri is None:
            raise OperatorError(
                "Kaniko needs the context in a store that its pods can reach, and it is on this machine only",
                "set builder.build-context-store",
            )
        section, cloud = self._section, self._place.cloud
        address = endpoint(context.uri, self._place.environment.get)
        signed = signs(section, address)
        if (cache := inputs.layer_cache) and cache.registry == inputs.image.registry:
            registry.prepare(cache)
        logins = self._logins(inputs, context, registry)
        registries = [inputs.image.registry, *(base.registry for base in logins.bases)]
        task = Task(
            connect(self._place.environment),
            section,
            cloud,
            inputs,
            context.uri,
            registry,
            logins,
            progress,
            address,
            self._place.insecure_registries,
            certificates(dict.fromkeys(registries)),
            signer(section, cloud, context.uri, progress) if signed else None,
        )
        return _run(task)

    def _logins(
        self, inputs: BuildInputs, context: StoredContext, registry: Registry
    ) -> BuildLogins:
        """Return what the pod may log in with; what the Dockerfile names is looked up where that
        counts.
        """
        section, cloud, config = self._section, self._place.cloud, self._place.docker_config
        asks = takes_docker_config(section, cloud, inputs.image)
        images = named_images(context, inputs.build_args) if asks else frozenset()
        return BuildLogins(section, cloud, inputs, registry, config, images)

    def discard(self, build: str) -> None:
        """See `Builder.discard`: the Jobs that it has made, with their pods and Secrets."""
        labels = f"{SELECTOR},{BUILD_ID}={label_value(build)}"
        remove_left_over(connect(self._place.environment), lambda *_: True, labels=labels)

    def tidy(self, over: Over) -> None:
        """See `Builder.tidy`; without a cluster there is nothing, and whoever builds is told."""
        try:
            cluster = connect(self._place.environment)
        except OperatorError:
            return
        self._looked_at = remove_left_over(cluster, over, spared=self._looked_at)


def _run(task: Task) -> str:
    """Return the digest of the first attempt that ends well.

    Whose name is taken is passed over. After one that ran out of memory there is one with more of
    it.
    """
    memory: str | None = None
    for number in range(1, ATTEMPTS + 1):
        ending = attempt(task, number, memory)
        if ending is None:
            continue
        if ending.error is None:
            return ending.digest
        if not ending.is_out_of_memory or memory is not None:
            raise ending.error
        memory = more_memory(
            ending.memory_limit, task.section.memory_ceiling, ending.memory_request
        )
        limit = (
            f"with its limit of {ending.memory_limit}" if ending.memory_limit else "without a limit"
        )
        task.progress.warn(
            f"The build ran out of memory {limit} (OOMKilled); it is tried once more, with a limit of {memory} and"
            " Kaniko's low-memory flags. Raise resources.limits.memory in builder.kaniko-config to spare the first try"
        )
    name = job_name(task.section, task.inputs)
    raise TransientError(
        f"The names of the build's Jobs, {name} and those after it, are taken in {task.cluster.namespace}",
        "see which of them Kubernetes cannot delete: kubectl get jobs,pods",
    )


def more_memory(limit: str | None, ceiling: str, request: str | None = None) -> str:
    """Twice the limit, but not more than the ceiling, nor less than it was.

    Without a limit it is the ceiling, or what was requested, if that is more.
    """
    if limit is None:
        return max(ceiling, request or ceiling, key=_amount)
    before = _amount(limit)
    number = math.ceil(max(before, min(2 * before, _amount(ceiling))))
    units = ["", "Ki", "Mi", "Gi", "Ti"]  # the largest that needs no fraction
    while number % 1024 == 0 and len(units) > 1:
        number //= 1024
        del units[0]
    return f"{number}{units[0]}"


def _amount(quantity: str) -> Decimal:
    amount: Decimal = parse_quantity(quantity)  # type: ignore[no-untyped-call]
    return amount


def remove_left_over(
    cluster: Cluster, over: Over, *, labels: str = SELECTOR, spared: Collection[str] = ()
) -> set[str]:
    """Delete what builds have left in the cluster whose worker died: of the Jobs that `labels` select
    those whose builds are over, with all that they own.

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
