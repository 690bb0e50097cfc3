"""What the build pod pushes and fetches with: a workload identity, a Secret of the user's, or one
of the build's own.

Where the executor looks is in its `pkg/creds`: first docker's `config.json`, then the chains of the
clouds, https://github.com/osscontainertools/kaniko/blob/v1.28.3/docs/registries.md. Only names of
Secrets are in a Job.

A pod gets no token for the Kubernetes API: whatever identity a cloud gives it comes another way.
The webhooks of EKS (IRSA and Pod Identity) and of Azure's workload identity mount a token of their
own, GKE has a metadata server. Who needs the token nevertheless sets `automountServiceAccountToken`
in `kaniko-config`.
"""

import re
from enum import Enum, auto

from imagemill.builders.kaniko.context_access import account_key
from imagemill.builders.kaniko.overlay import Document, executor, pod_spec
from imagemill.builders.kaniko.pod_additions import FOLDER, Equipment, secret_volume, variable
from imagemill.config.model import Environment, KanikoBuilder
from imagemill.config.store_key import AGENTS_KEY, AGENTS_SECRET, takes_agents_key
from imagemill.reference import ImageReference
from imagemill.registries import HOSTS

DOCKER_CONFIG_KEY = ".dockerconfigjson"
"""The key of docker's `config.json` in a Secret of the type `kubernetes.io/dockerconfigjson`."""

_DOCKER_CONFIG = f"{FOLDER}/.docker"
_GOOGLE = f"{FOLDER}/.config/gcloud"
_AWS = "/root/.aws"  # where Amazon's library looks, as the executor runs as root
_VOLUME = "imagemill-credentials"

_GCR = re.compile(r"([a-z]+\.)?gcr\.io")
_CLOUDS = {"acr": "azure", "artifact_registry": "gcp", "ecr": "aws"}


class _Kind(Enum):
    """What can be in the Secret that the config names."""

    DOCKER_CONFIG = auto()
    AWS_CREDENTIALS = auto()
    GOOGLE_KEY = auto()
    ACCOUNT_KEY = auto()


_KINDS = {"aws": _Kind.AWS_CREDENTIALS, "gcp": _Kind.GOOGLE_KEY}


def credentials_equipment(
    section: KanikoBuilder,
    environment: Environment,
    image: ImageReference,
    docker_secret: str | None,
) -> Equipment:
    """Return the user's Secret where the executor looks for such ones, and `docker_secret`, the
    build's own.

    `docker_secret` is the name of a Secret with docker's `config.json` under `DOCKER_CONFIG_KEY`,
    or None.
    """
    kind = _kind(section, environment, image)
    equipment = _of(kind, section)
    if takes_agents_key(section):
        equipment += account_key(AGENTS_SECRET, AGENTS_KEY)
    if docker_secret is not None and kind is not _Kind.DOCKER_CONFIG:
        equipment += _docker_config(docker_secret, DOCKER_CONFIG_KEY, "imagemill-registry")
    return equipment


def takes_docker_config(
    section: KanikoBuilder, environment: Environment, image: ImageReference
) -> bool:
    """Return whether logins of the build's own come to be read: not where the user has put some
    where Kaniko looks first.
    """
    kind = _kind(section, environment, image)
    return kind is not _Kind.DOCKER_CONFIG and not _brings_docker_config(
        executor(section.kaniko_config)
    )


def needs_docker_secret(
    section: KanikoBuilder, environment: Environment, image: ImageReference
) -> bool:
    """Whether the build is to bring credentials for the registry along, since the pod has nothing
    to push with.

    It has if the user's Secret is for that registry; if the registry is a cloud's and the pod runs
    as a service account that the user has named (workload identity); or if the user has put
    something where Kaniko looks first.
    """
    cloud, kind = _cloud(image), _kind(section, environment, image)
    if kind is not None and kind is _KINDS.get(cloud):
        return False
    pod = pod_spec(section.kaniko_config)
    if cloud != "local" and (pod.get("serviceAccountName") or pod.get("serviceAccount")):
        return False
    return takes_docker_config(section, environment, image)


def _kind(section: KanikoBuilder, environment: Environment, image: ImageReference) -> _Kind | None:
    """By the key's name where that tells; else the account key, which nothing can replace; else by
    the cloud.
    """
    if section.secret_name is None or section.secret_key is None:
        return None
    cloud = _cloud(image)
    # Google's keys are files of JSON too, and the agent's guide has them called config.json.
    docker_names = (
        {".dockerconfigjson", ".dockerconfig"}
        if cloud == "gcp"
        else {".dockerconfigjson", "config.json"}
    )
    if section.secret_key in docker_names:
        return _Kind.DOCKER_CONFIG
    if section.build_context_store.startswith("https://"):
        return _Kind.ACCOUNT_KEY
    return _KINDS.get(cloud if cloud != "local" else environment.type, _Kind.DOCKER_CONFIG)


def _of(kind: _Kind | None, section: KanikoBuilder) -> Equipment:
    if kind is None:
        return Equipment()
    assert section.secret_name is not None
    assert section.secret_key is not None
    match kind:
        case _Kind.DOCKER_CONFIG:
            return _docker_config(section.secret_name, section.secret_key, _VOLUME)
        case _Kind.AWS_CREDENTIALS:
            return secret_volume(
                _VOLUME, _AWS, section.secret_name, {section.secret_key: "credentials"}
            )
        case _Kind.GOOGLE_KEY:
            files = {section.secret_key: "key.json"}
            return secret_volume(_VOLUME, _GOOGLE, section.secret_name, files) + variable(
                "GOOGLE_APPLICATION_CREDENTIALS", f"{_GOOGLE}/key.json"
            )
        case _Kind.ACCOUNT_KEY:
            return account_key(section.secret_name, section.secret_key)


def _docker_config(secret: str, key: str, name: str) -> Equipment:
    # The variable is the official image's own; another executor may be without it.
    return secret_volume(name, _DOCKER_CONFIG, secret, {key: "config.json"}) + variable(
        "DOCKER_CONFIG", _DOCKER_CONFIG
    )


def _cloud(image: ImageReference) -> str:
    """Return the cloud whose registry it is; `local` if it is none's."""
    if _GCR.fullmatch(image.registry):
        return "gcp"
    return _CLOUDS.get(
        next(name for hosts, name in HOSTS if hosts.fullmatch(image.registry)), "local"
    )


def _brings_docker_config(container: Document) -> bool:
    mounts = container.get("volumeMounts") or ()
    return not {"DOCKER_CONFIG", "DOCKER_AUTH_CONFIG"}.isdisjoint(_names(container)) or any(
        str(mount.get("mountPath")).startswith(_DOCKER_CONFIG)
        for mount in mounts
        if isinstance(mount, dict)
    )


def _names(container: Document) -> set[str]:
    """Of the container's variables."""
    return {variable["name"] for variable in container.get("env") or ()}
