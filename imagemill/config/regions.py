"""Where a cloud's registry lies, as far as its host says so: one that is elsewhere works, but
slowly.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from imagemill.clouds.hosts import ARTIFACT_REGISTRY, ECR
from imagemill.config.model import LaunchConfig
from imagemill.reference import ImageReference

_HOSTS: Mapping[str, re.Pattern[str]] = MappingProxyType({"aws": ECR, "gcp": ARTIFACT_REGISTRY})
_MULTI_REGIONS = ("asia", "europe", "us")


def mismatch(config: LaunchConfig) -> str | None:
    """Return a warning that names both regions, where the destination is in another one than
    `environment.region`.
    """
    ours, destination = config.environment.region, config.builder.destination
    hosts = _HOSTS.get(config.environment.type)
    if ours is None or destination is None or hosts is None:
        return None
    found = hosts.fullmatch(ImageReference.parse_destination(destination).registry)
    if found is None or _covers(found["region"], ours):
        return None
    return (
        f"the registry is in {found['region']}, and environment.region is {ours}:"
        " every push and pull goes from one to the other, which takes longer and is charged"
    )


def _covers(location: str, region: str) -> bool:
    """Whether the location is the region, or the multi-region that it is a part of."""
    return location == region or (location in _MULTI_REGIONS and region.startswith(f"{location}-"))


def store_region(config: LaunchConfig) -> str | None:
    """Return the AWS region that the config tells, in its environment, in its pods' variables or
    by an ECR host.
    """
    builder = config.builder
    if config.environment.type == "aws":
        return config.environment.region
    if builder.destination is None:
        return None
    found = ECR.search(ImageReference.parse_destination(builder.destination).registry)
    return found["region"] if found else None
