"""Amazon's Elastic Container Registry, as its policies know it: the actions of a build, and the names
of repositories.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerregistry.html
"""

import base64
from collections.abc import Mapping
from typing import Any

from imagemill.clouds.hosts import ECR, partition_of
from imagemill.ports import Credentials
from imagemill.reference import ImageReference

LOGIN = "ecr:GetAuthorizationToken"
"""It is granted on `*` alone."""

PUSH = (
    "ecr:BatchCheckLayerAvailability",
    "ecr:InitiateLayerUpload",
    "ecr:UploadLayerPart",
    "ecr:CompleteLayerUpload",
    "ecr:PutImage",
)
PULL = ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")


def decoded_login(data: Mapping[str, Any]) -> Credentials:
    """Return the login in an `authorizationData` of the API."""
    username, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    return Credentials(username, password, expires=data["expiresAt"].timestamp())


def repository_arn(reference: ImageReference) -> str | None:
    """Return the ARN of a repository; None for one that is not in ECR."""
    host = ECR.fullmatch(reference.registry)
    if host is None:
        return None
    region = host["region"]
    partition = partition_of(region).name
    return f"arn:{partition}:ecr:{region}:{host['account']}:repository/{reference.path}"
