"""The clouds' services, as far as their hosts tell them apart: patterns of whole hosts."""

import re
from urllib.parse import urlsplit

ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(?P<fips>-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?"
)
"""Amazon's: https://docs.aws.amazon.com/general/latest/gr/ecr.html."""

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
