"""Amazon's public registry, public.ecr.aws/ALIAS/REPOSITORY: read as any registry is, by anybody;
pushed to with a login of its own API, which is in one region alone.

https://docs.aws.amazon.com/AmazonECR/latest/public/public-registries.html#public-registry-auth
"""

import time
from typing import Any

from imagemill.clouds.ecr import decoded_login
from imagemill.errors import OperatorError, PermissionDenied
from imagemill.ports import Credentials
from imagemill.reference import ImageReference
from imagemill.registries.authorization import Login
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import OciRegistry

_REGION = "us-east-1"
_RENEW_BEFORE = 60 * 60.0
"""Seconds before its end at which a login is not handed out any more; it lives for 12 hours."""


class EcrPublicRegistry(OciRegistry):
    """Reads with docker's config, or anonymously; all else with boto3's default credentials where
    docker's config has no login.
    """

    def __init__(self, docker_config: DockerConfig, insecure: frozenset[str] = frozenset()) -> None:
        super().__init__(docker_config, insecure)
        self._owners = OciRegistry(_AmazonLogin(docker_config), insecure)

    def digest(self, reference: ImageReference) -> str | None:
        """See `Registry.digest`; whoever may push is told more of what is not there."""
        try:
            return super().digest(reference)
        except PermissionDenied as refusal:
            try:
                return self._owners.digest(reference)
            except OperatorError:
                raise refusal from None

    def tag(self, reference: ImageReference, tags: tuple[str, ...]) -> None:
        """See `Registry.tag`."""
        self._owners.tag(reference, tags)

    def credentials(self, repository: ImageReference) -> Credentials | None:
        """See `Registry.credentials`."""
        return self._owners.credentials(repository)

    def prepare(self, repository: ImageReference) -> None:
        """See `Registry.prepare`: the repository is made if it is not there."""
        if self._source.login(repository).credentials:
            return  # of somebody whose rights at the API are not known
        import botocore.exceptions as sdk

        from imagemill.clouds import aws

        name = repository.path.partition("/")[2]
        with aws.translated(
            "ecr-public:CreateRepository", f"{repository.registry}/{repository.path}"
        ):
            try:
                _client().create_repository(repositoryName=name)
            except sdk.ClientError as error:
                if error.response["Error"]["Code"] != "RepositoryAlreadyExistsException":
                    raise

    def delete(self, reference: ImageReference) -> None:
        """See `Registry.delete`."""
        self._owners.delete(reference)


class _AmazonLogin:
    """Docker's login, else what the API gives for 12 hours."""

    def __init__(self, docker_config: DockerConfig) -> None:
        self._docker_config = docker_config
        self._known: Credentials | None = None

    def login(self, repository: ImageReference) -> Login:
        found = self._docker_config.login(repository)
        if found.credentials:
            return found
        if self._known is None or (self._known.expires or 0) - time.time() < _RENEW_BEFORE:
            from imagemill.clouds import aws

            with aws.translated("ecr-public:GetAuthorizationToken", "*"):
                answer = _client().get_authorization_token()
                self._known = decoded_login(answer["authorizationData"])
        return Login(self._known)


def _client() -> Any:
    from imagemill.clouds import aws

    return aws.client("ecr-public", _REGION)
