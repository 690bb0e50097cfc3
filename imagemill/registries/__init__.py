"""Registries: which adapter asks the registry that an image reference lies in.

An adapter is a class made from a source of credentials and the hosts that speak plain HTTP. To add
one, add its module to `ADAPTERS` and its hosts to `HOSTS`, before the line that takes all.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from imagemill.adapters import Adapter, load
from imagemill.clouds.hosts import ACR, ARTIFACT_REGISTRY, ECR, ECR_PUBLIC
from imagemill.ports import Registry
from imagemill.reference import ImageReference
from imagemill.registries.docker_config import DockerConfig

if TYPE_CHECKING:
    from imagemill.registries.blobs import Blobs

ADAPTERS: Mapping[str, Adapter] = MappingProxyType(
    {
        "acr": Adapter("imagemill.registries.acr", "AzureRegistry", "azure"),
        "artifact_registry": Adapter(
            "imagemill.registries.artifact_registry", "ArtifactRegistry", "gcp"
        ),
        "ecr": Adapter("imagemill.registries.ecr", "EcrRegistry", "aws"),
        "ecr_public": Adapter("imagemill.registries.ecr_public", "EcrPublicRegistry"),
        "oci": Adapter("imagemill.registries.oci", "OciRegistry"),
    }
)

HOSTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (ACR, "acr"),
    (ARTIFACT_REGISTRY, "artifact_registry"),
    (ECR, "ecr"),
    (ECR_PUBLIC, "ecr_public"),
    (re.compile(".*"), "oci"),
)
"""Patterns of whole hosts, with port, and the adapters' names; the first match counts."""


def registry_for(
    reference: ImageReference,
    *,
    docker_config: DockerConfig,
    insecure: frozenset[str] = frozenset(),
) -> Registry:
    """Return the adapter for the registry of `reference`; the same one each time, since it keeps
    tokens.
    """
    name = next(name for hosts, name in HOSTS if hosts.fullmatch(reference.registry))
    return _adapter(name, docker_config, insecure)


@lru_cache(maxsize=32)
def _adapter(name: str, docker_config: DockerConfig, insecure: frozenset[str]) -> Registry:
    registry: Registry = load(ADAPTERS, name, "registry")(docker_config, insecure)
    return registry


@lru_cache(maxsize=32)
def blobs_for(
    host: str, docker_config: DockerConfig, insecure: frozenset[str] = frozenset()
) -> "Blobs":
    """Return what the registry at `host` stores; the same one each time, since it keeps tokens."""
    reference = ImageReference(host, "imagemill")
    from imagemill.registries.blobs import Blobs

    return Blobs(registry_for(reference, docker_config=docker_config, insecure=insecure), insecure)
