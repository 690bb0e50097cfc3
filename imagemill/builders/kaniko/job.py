"""The Kubernetes Job of a build, as the JSON of the API, in three layers: defaults,
`kaniko-config`, and what is ours.

Ours is what makes a Job findable, safe to adopt and honest about its result: its name and our
labels, that it runs once, what it builds, where it pushes to and where its digest is read. It is
laid over the user's config, since a config of the W&B agent must work as it is; only arguments that
would change what is built are refused, so that nobody waits for what they would not get.
"""

import hashlib
import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from imagemill.builders.kaniko import arguments
from imagemill.builders.kaniko.context_access import context_equipment
from imagemill.builders.kaniko.features import FEATURES
from imagemill.builders.kaniko.overlay import Document, executor, lay, pod_spec
from imagemill.builders.kaniko.pod_additions import (
    FOLDER,
    Equipment,
    literal,
    secret_volume,
    variable,
)
from imagemill.builders.kaniko.pod_credentials import credentials_equipment
from imagemill.builders.kaniko.trust import certificates_equipment
from imagemill.config.faults import FREE, Fault, dotted
from imagemill.config.kaniko_job import LEAST_RETENTION, TERMINATION_LOG, TERMINATION_POLICY
from imagemill.config.model import Environment, KanikoBuilder, LocalEnvironment
from imagemill.errors import ConfigError, UserError
from imagemill.ports import BuildInputs

BUILD_ID = "dev.imagemill/build-id"
SOURCE_HASH = "dev.imagemill/source-hash"
IMAGE = "dev.imagemill/image"
"""Labels and annotations. The image, repository and tag, is an annotation alone: a Job that is to
be adopted may be of the same source, and yet push to another place."""

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
"""The annotation of a pod that says which of its containers is meant, for `kubectl logs` and for
us: webhooks put containers of their own into pods, also before the first one."""

LABELS = {
    "app.kubernetes.io/name": "imagemill",
    "app.kubernetes.io/managed-by": "imagemill",
    "app.kubernetes.io/component": "build",
}
"""On each Job of ours, on its pod and on its Secrets."""

REQUESTS = {"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "5Gi"}
"""What a build asks of a node. There is no limit: what an image needs is known only to whoever
writes it.
"""

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP", "SETGID", "SETUID")
"""What root may do in the pod beyond any user: give files their owners, modes and capabilities as
an image has them, and become the user that the Dockerfile names. All others are dropped.
"""

LOST_NODE = tuple(
    {
        "key": f"node.kubernetes.io/{taint}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 30,
    }
    for taint in ("not-ready", "unreachable")
)
"""How long a pod stays on a node that does not answer. Kubernetes gives it five minutes, and a
build waits as long.
"""

SLACK = 60.0
"""Seconds by which a Job outlives its build's deadline, so that the worker ends it, if there is
one, and says why.
"""

UNDISTURBED = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Annotations by which what tidies up nodes lets a pod be: a build that is moved begins again."""

EXECUTOR = ("spec", "template", "spec", "containers", 0)
"""Where in a Job the executor's container is."""

_CONTAINER = "kaniko"
_LABEL_LENGTH = 63
_SOURCE_DIGITS, _IMAGE_DIGITS = 12, 7
_RETRIES = 3
_SECRETS = f"{FOLDER}/build-secrets"


@dataclass(frozen=True)
class Circumstances:
    """What a Job depends on besides the config and the build's inputs."""

    environment: Environment = field(default_factory=LocalEnvironment)
    deadline: float = math.inf
    """Seconds that are left for the build."""
    endpoint: str | None = None
    """Where the worker finds the context store, if that is not the cloud's own place."""
    insecure_registries: Collection[str] = ()
    """Hosts, with ports, that speak plain HTTP."""
    docker_secret: str | None = None
    """The build's own Secret with docker's `config.json` under the key `.dockerconfigjson`."""
    build_secrets: str | None = None
    """The build's own Secret with the build secrets, by their ids; needed if the inputs have
    any.
    """
    context_secret: str | None = None
    """The build's own Secret with the signed URL of its context."""
    certificates: tuple[str, ...] = ()
    """What the build's own Secret with certificates has: see `trust.certificates`."""
    attempt: int = 1
    memory: str | None = None
    """The limit of the executor's memory for an attempt after one that ran out of it; None: the
    config's.
    """


def circumstances_of(
    section: KanikoBuilder,
    environment: Environment,
    inputs: BuildInputs,
    *,
    has_login: bool,
    is_signed: bool = False,
    certificates: Iterable[str] = (),
    remaining: float,
    endpoint: str | None = None,
    insecure_registries: Collection[str] = (),
    attempt: int = 1,
    memory: str | None = None,
) -> Circumstances:
    """Return the circumstances of a build that has `remaining` seconds left.

    `has_login` says whether it brings credentials for the registry along, `is_signed` whether a
    signed URL of its context; for the others see `Circumstances`.
    """
    name = job_name(section, inputs, attempt)
    return Circumstances(
        environment=environment,
        deadline=remaining + SLACK,
        endpoint=endpoint,
        insecure_registries=insecure_registries,
        docker_secret=docker_secret_name(name) if has_login else None,
        build_secrets=build_secret_name(name) if inputs.secrets else None,
        context_secret=context_secret_name(name) if is_signed else None,
        certificates=tuple(certificates),
        attempt=attempt,
        memory=memory,
    )


def job_for(
    section: KanikoBuilder,
    inputs: BuildInputs,
    context_uri: str,
    circumstances: Circumstances | None = None,
) -> Document:
    """Return the Job that builds `inputs` from the packed context at `context_uri`.

    The section's `kaniko_config` is a part of a Job: `validation.valid_job` sees to that, and to
    the result. `ConfigError` if the config asks for what cannot be, `UserError` if the inputs do.
    """
    facts = circumstances or Circumstances()
    for fault in reserved_faults(section.kaniko_config):
        where = dotted((*FREE, *fault.path))
        raise ConfigError(f"{where}: {fault.message}", fault.hint)
    equipment = _equipment(section, inputs, context_uri, facts)
    job = lay(_defaults(section, inputs, equipment, facts), section.kaniko_config)
    return _in_order(lay(job, _ours(section, inputs, equipment, facts)))


def job_name(section: KanikoBuilder, inputs: BuildInputs, attempt: int = 1) -> str:
    """`<build-job-name>-<12 digits of the source hash>-<7 of the image's>`, so that one source is
    built once for each place that it goes to; `-2` for a second attempt.

    Pods carry it as a label, so it has at most 63 characters: the prefix gives way.
    """
    image = hashlib.sha256(str(inputs.image).encode()).hexdigest()[:_IMAGE_DIGITS]
    end = f"-{inputs.source_hash[:_SOURCE_DIGITS]}-{image}" + (f"-{attempt}" if attempt > 1 else "")
    return section.build_job_name[: _LABEL_LENGTH - len(end)].rstrip("-") + end


def docker_secret_name(job: str) -> str:
    """Return the Secret with the registry's login."""
    return f"{job}-registry"


def build_secret_name(job: str) -> str:
    """Return the Secret with the build secrets."""
    return f"{job}-build-secrets"


def context_secret_name(job: str) -> str:
    """Return the name of the Secret with the signed URL of the context."""
    return f"{job}-context"


def certificates_name(job: str) -> str:
    """Return the name of the Secret with the certificates that the pod is to trust."""
    return f"{job}-certificates"


def secret_names(job: str) -> tuple[str, ...]:
    """Return the names of all Secrets that a Job may have of its own."""
    named = (docker_secret_name, build_secret_name, context_secret_name, certificates_name)
    return tuple(name(job) for name in named)


def own_secrets(job: Document) -> list[str]:
    """Return the names of the Secrets that a Job refers to and that were made for it."""
    used = {
        (volume.get("secret") or {}).get("secretName")
        for volume in pod_spec(job).get("volumes") or ()
    } | {
        ((variable.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name")
        for variable in executor(job).get("env") or ()
    }
    return [own for own in secret_names(job["metadata"]["name"]) if own in used]


def job_labels(inputs: BuildInputs) -> dict[str, str]:
    """Return the labels that a Job, its pod and its Secrets are found by."""
    return LABELS | {
        BUILD_ID: label_value(inputs.build_id),
        SOURCE_HASH: label_value(inputs.source_hash),
    }


def label_value(text: str) -> str:
    """Return the text as a label's value can have it: up to 63 letters, digits and, within, '-',
    '_' and '.'.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
    """
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:_LABEL_LENGTH].strip("-_.")


def _in_order(job: Document) -> Document:
    """With its keys as people expect them."""
    first = ("apiVersion", "kind", "metadata", "spec")
    return {key: job[key] for key in first} | {
        key: value for key, value in job.items() if key not in first
    }


def reserved_faults(config: Document) -> Iterator[Fault]:
    """Yield the arguments and variables that nobody but us may give: paths begin at the config."""
    container = executor(config)
    for index, flag in arguments.reserved(container.get("args") or ()):
        message = f"--{flag} is not to be given here: {arguments.RESERVED[flag]}"
        yield Fault((*EXECUTOR, "args", index), message, "leave the argument out")
    for index, given in enumerate(container.get("env") or ()):
        if why := arguments.RESERVED_VARIABLES.get(given["name"]):
            message = f"{given['name']} is not to be given here: {why}"
            yield Fault((*EXECUTOR, "env", index), message, "leave the variable out")


def _equipment(
    section: KanikoBuilder, inputs: BuildInputs, context_uri: str, facts: Circumstances
) -> Equipment:
    """All that the pod needs to get at the context, the registry and the build secrets."""
    equipment = (
        # Kaniko refuses to run where it sees no container; the folder of a service account's token,
        # which is not there, is one of its signs. This is another:
        # https://systemd.io/CONTAINER_INTERFACE/#environment-variables
        variable("container", "kube")
        + _features(section)
        + _telemetry(inputs)
        + context_equipment(
            context_uri, section, facts.environment, facts.endpoint, facts.context_secret
        )
        + credentials_equipment(section, facts.environment, inputs.image, facts.docker_secret)
    )
    if facts.certificates:
        secret = certificates_name(job_name(section, inputs, facts.attempt))
        equipment += certificates_equipment(secret, facts.certificates)
    if not inputs.secrets:
        return equipment
    if facts.build_secrets is None:
        raise ValueError("a build with secrets needs a Secret that holds them")
    return equipment + secret_volume(
        "imagemill-build-secrets",
        _SECRETS,
        facts.build_secrets,
        {name: name for name in inputs.secrets},
    )


def _features(section: KanikoBuilder) -> Equipment:
    wanted = FEATURES if section.kaniko_features == "recommended" else ()
    return Equipment(env=tuple({"name": name, "value": "true"} for name in wanted))


def _telemetry(inputs: BuildInputs) -> Equipment:
    """Return what the executor sends its own spans by: its docs/telemetry.md. No version up to
    v1.28.3 reads TRACEPARENT; by the attributes its trace is found from ours, and ours from it.
    """
    if inputs.collector is None or inputs.traceparent is None:
        return Equipment()
    trace = inputs.traceparent.split("-")[1]
    found_by = f"imagemill.build={label_value(inputs.build_id)},imagemill.trace_id={trace}"
    return (
        variable("KANIKO_TELEMETRY_ENDPOINT", inputs.collector)
        + variable("KANIKO_TELEMETRY_OMIT_DOCKERFILE", "true")
        + variable("OTEL_RESOURCE_ATTRIBUTES", found_by)
        + variable("TRACEPARENT", inputs.traceparent)
    )


def _defaults(
    section: KanikoBuilder, inputs: BuildInputs, equipment: Equipment, facts: Circumstances
) -> Document:
    """Return what `kaniko-config` may replace."""
    container: Document = {
        "name": _CONTAINER,
        "image": section.kaniko_image,
        "args": [*_default_arguments(facts), *_cache_arguments(inputs)],
        "env": list(equipment.env),
        "resources": {"requests": _requests(section.kaniko_config)},
        "securityContext": _security(section.kaniko_config),
    }
    if equipment.mounts:
        container["volumeMounts"] = list(equipment.mounts)
    pod: Document = {
        "automountServiceAccountToken": False,  # see `credentials`
        # Else each Service of the namespace would put variables into the environment of the
        # executor.
        "enableServiceLinks": False,
        # Kaniko unpacks images over its own root folder, and has to be root for that; it needs no
        # privileges beyond.
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "tolerations": list(map(dict, LOST_NODE)),
        "containers": [container],
    }
    if equipment.volumes:
        pod["volumes"] = list(equipment.volumes)
    if selector := _node_selector(inputs.platform):
        pod["nodeSelector"] = selector
    template = {"metadata": {"annotations": dict(UNDISTURBED)}, "spec": pod}
    return {"spec": {"template": template}}


def _default_arguments(facts: Circumstances) -> list[str]:
    """Patience with registries, and a log without colours."""
    return [
        "--log-format=text",
        f"--image-download-retry={_RETRIES}",
        f"--image-fs-extract-retry={_RETRIES}",
        f"--push-retry={_RETRIES}",
        *(f"--insecure-registry={host}" for host in sorted(facts.insecure_registries)),
    ]


def _cache_arguments(inputs: BuildInputs) -> list[str]:
    """Return where layers are kept; Kaniko finds each by what it is made of, so builds share one place."""
    cache = inputs.layer_cache
    return ["--cache=true", f"--cache-repo={cache.repository}"] if cache else []


def _security(config: Document) -> Document:
    """Return what root may do in the pod. Where the config gives it more than any container has,
    Kubernetes does not take `allowPrivilegeEscalation: false`.
    """
    given = executor(config).get("securityContext") or {}
    added = (given.get("capabilities") or {}).get("add") or ()
    least: Document = {"capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)}}
    if given.get("privileged") or not {"SYS_ADMIN", "CAP_SYS_ADMIN", "ALL"}.isdisjoint(added):
        return least
    return {"allowPrivilegeEscalation": False} | least


def _requests(config: Document) -> dict[str, str]:
    """Without those of which the user gives only a limit: Kubernetes then requests the limit, and
    refuses more.
    """
    limits = (executor(config).get("resources") or {}).get("limits") or {}
    return {name: amount for name, amount in REQUESTS.items() if name not in limits}


def _node_selector(platform: str | None) -> dict[str, str]:
    """Kaniko runs the Dockerfile's commands itself, on a node that must be able to."""
    system, _, architecture = (platform or "").partition("/")
    if system != "linux":
        return {}
    return {"kubernetes.io/os": system, "kubernetes.io/arch": architecture.partition("/")[0]}


def _ours(
    section: KanikoBuilder, inputs: BuildInputs, equipment: Equipment, facts: Circumstances
) -> Document:
    """Return what is as it is, whatever `kaniko-config` says."""
    config = section.kaniko_config
    given = executor(config)
    annotations = {
        BUILD_ID: inputs.build_id,
        SOURCE_HASH: inputs.source_hash,
        IMAGE: str(inputs.image),
    }
    marks = {"labels": job_labels(inputs), "annotations": annotations}
    default = {DEFAULT_CONTAINER: given.get("name") or _CONTAINER}
    template = {
        "metadata": {**marks, "annotations": annotations | default},
        "spec": {
            "restartPolicy": "Never",
            "containers": [_executor(given, inputs, equipment, facts.memory)],
        },
    }
    name = job_name(section, inputs, facts.attempt)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "generateName": None, **marks},
        "spec": {
            # We know what can be tried again, and try it.
            **{"backoffLimit": 0, "completions": 1, "parallelism": 1},
            **_deadline(config, facts.deadline),
            "ttlSecondsAfterFinished": _retention(config, section.failed_job_retention),
            "template": template,
        },
    }


def _executor(
    given: Document, inputs: BuildInputs, equipment: Equipment, memory: str | None
) -> Document:
    """Return what is as it is of the executor's container, which the config gives."""
    args = [
        *arguments.without_keeping(given.get("args") or ()),
        *equipment.arguments,
        *_arguments(inputs),
        *(arguments.LOW_MEMORY if memory else ()),
    ]
    container: Document = {
        "args": args,
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": TERMINATION_POLICY,
    }
    if memory:
        # Where the config has a limit, the new one is requested as well: this time the memory is
        # there. Where it has none, the new one is but the most that a build may take, and few nodes
        # have as much: so the request stays as it was.
        has_limit = ((given.get("resources") or {}).get("limits") or {}).get("memory") is not None
        requests = {"requests": {"memory": None}} if has_limit else {}
        container["resources"] = {"limits": {"memory": memory}, **requests}
    return container


def _retention(config: Document, default: int) -> int | None:
    """Seconds for which a Job that has ended stays; None: for ever, if the config says so."""
    given: int | None = (config.get("spec") or {}).get("ttlSecondsAfterFinished", default)
    return None if given is None else max(given, LEAST_RETENTION)


def _deadline(config: Document, deadline: float) -> dict[str, int]:
    """Return the build's own deadline, also for a Job whose worker has died, or the user's if that
    is earlier.
    """
    if not math.isfinite(deadline):
        return {}
    ours = max(1, math.ceil(deadline))
    given = (config.get("spec") or {}).get("activeDeadlineSeconds")
    return {"activeDeadlineSeconds": ours if given is None else min(given, ours)}


def _arguments(inputs: BuildInputs) -> list[str]:
    """Return what is built, and where it goes.

    A build argument is given with its value. A bare name, which Kaniko would look up in its
    environment, hides nothing: the environment is as much a part of the Job as its arguments are.
    And it would put names that others have chosen (AWS_PROFILE, HTTPS_PROXY, LD_PRELOAD) into the
    environment of the executor, which obeys them.
    """
    given = [f"--destination={inputs.image}", f"--digest-file={TERMINATION_LOG}"]
    given += ["--cache=false"] * inputs.no_cache
    given += [f"--target={inputs.target}"] if inputs.target else []
    given += [f"--custom-platform={inputs.platform}"] if inputs.platform else []
    given += [_pair("build-arg", "build argument", *pair) for pair in inputs.build_args.items()]
    given += [_pair("label", "label", *pair) for pair in inputs.labels.items()]
    given += [f"--secret=id={name},src={_SECRETS}/{name}" for name in inputs.secrets]
    return list(map(literal, given))


def _pair(flag: str, what: str, name: str, value: str) -> str:
    if not name or "=" in name or "\0" in name + value:
        raise UserError(
            f"{name!r} cannot be the name of a {what}", "use letters, digits, '.', '-' and '_'"
        )
    return f"--{flag}={name}={value}"
