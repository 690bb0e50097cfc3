"""The clouds' services, as far as their hosts tell them apart: patterns of whole hosts."""

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit


class Partition(NamedTuple):
    """A part of AWS that knows nothing of the others."""

    name: str
    """As ARNs have it."""
    regions: str
    """What the names of its regions begin with."""
    domain: str
    """What the hosts of its services end in."""
    dual_stack: str
    """The same of ECR's hosts that have IPv6 addresses, too."""


_AWS = Partition("aws", "", "amazonaws.com", "on.aws")
PARTITIONS = (
    Partition("aws-cn", "cn-", "amazonaws.com.cn", "on.amazonwebservices.com.cn"),
    Partition("aws-us-gov", "us-gov-", "amazonaws.com", "on.aws"),
    Partition("aws-eusc", "eusc-", "amazonaws.eu", "on.amazonwebservices.eu"),
    Partition("aws-iso", "us-iso-", "c2s.ic.gov", "on.aws.ic.gov"),
    Partition("aws-iso-b", "us-isob-", "sc2s.sgov.gov", "on.aws.scloud"),
    Partition("aws-iso-e", "eu-isoe-", "cloud.adc-e.uk", "on.cloud-aws.adc-e.uk"),
    Partition("aws-iso-f", "us-isof-", "csp.hci.ic.gov", "on.aws.hci.ic.gov"),
    _AWS,
)
"""Names, regions and domains are those of botocore's `partitions.json`; the last takes all."""


def partition_of(region: str | None) -> Partition:
    """Return the partition that a region of AWS is in."""
    return next(each for each in PARTITIONS if (region or "").startswith(each.regions))


def _any_of(names: Iterable[str]) -> str:
    return "|".join(map(re.escape, dict.fromkeys(names)))


ECR = re.compile(
    r"(?P<account>\d{12})\.dkr(?:"
    rf"\.ecr(?=[a-z0-9.-]+\.(?:{_any_of(each.domain for each in PARTITIONS)})$)"
    rf"|-ecr(?=[a-z0-9.-]+\.(?:{_any_of(each.dual_stack for each in PARTITIONS)})$)"
    r")(?P<fips>-fips)?\.(?P<region>[a-z0-9-]+)\.[a-z0-9.-]+"
)
"""Amazon's: https://docs.aws.amazon.com/general/latest/gr/ecr.html and
https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-requests.html."""

ECR_PUBLIC = re.compile(r"public\.ecr\.aws")
"""Amazon's for everybody: https://docs.aws.amazon.com/AmazonECR/latest/public/."""

ECR_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):ecr:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):repository/(?P<path>[^:@]+)(?:[:@].*)?"
)


def ecr_host(account: str, region: str) -> str:
    """Return the host of the registry that an account has in a region."""
    return f"{account}.dkr.ecr.{region}.{partition_of(region).domain}"


ARTIFACT_REGISTRY = re.compile(r"(?P<region>[a-z0-9-]+)-docker\.pkg\.dev")
"""Google's: https://cloud.google.com/artifact-registry/docs/repositories/repo-locations."""

ACR = re.compile(r"(?P<name>[a-z0-9]+)(?:-(?P<label>[a-z0-9]+))?\.azurecr\.(?:io|cn|us)")
"""Azure's, of the public and of the sovereign clouds.

A registry's name has letters and digits alone; after a hyphen comes the label that Azure makes its
domain name unique with:
https://learn.microsoft.com/azure/container-registry/container-registry-get-started-portal ("Domain
name label").
"""

AZURE_BLOB = re.compile(
    r"[a-z0-9]{3,24}\.blob\.core\.(?:windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)"
)
"""A storage account's, of the public and of the sovereign clouds."""

_VIRTUAL_ONLY = re.compile(r"(?:.+\.)?(?:cwobject|cwlota)\.com")
"""CoreWeave's object storage."""


def wants_virtual_hosts(endpoint: str) -> bool:
    """Whether the S3-compatible service takes a bucket's name as a part of the host only, never of
    the path.
    """
    return _VIRTUAL_ONLY.fullmatch(urlsplit(endpoint).hostname or "") is not None
