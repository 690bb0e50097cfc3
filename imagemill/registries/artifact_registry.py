"""Google's Artifact Registry: any registry's API, with a Google access token for a password.

It holds repositories that somebody has made (`LOCATION-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE`)
and makes none by itself, so one that is missing is told with the command that makes it. How it is
logged in to: https://cloud.google.com/artifact-registry/docs/docker/authentication#token.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from imagemill.clouds.gcp import AccessTokens, permission_named
from imagemill.errors import PermissionDenied, UserError
from imagemill.http import Answer
from imagemill.place import machine
from imagemill.ports import Credentials, PushRole
from imagemill.reference import ImageReference
from imagemill.registries.authorization import Login
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.failures import failure
from imagemill.registries.oci import OciRegistry

_USER = "oauth2accesstoken"
_HOST_END = "-docker.pkg.dev"
_PUSH = "pull,push"

_NO_REPOSITORY = (b"NAME_UNKNOWN", b"Repository ", b"not found")
"""What it says, in this order, when it is the repository that is missing, and not the image in it."""

_NEEDS = {
    "pull": "artifactregistry.repositories.downloadArtifacts",
    _PUSH: "artifactregistry.repositories.uploadArtifacts",
}
_NEEDS_TO_DELETE = "artifactregistry.tags.delete"
"""Permissions: https://cloud.google.com/artifact-registry/docs/access-control."""


class ArtifactRegistry(OciRegistry):
    """The registries of all locations, with the worker's default credentials; Docker's config is
    not looked at.
    """

    def __init__(
        self, docker_config: DockerConfig | None = None, insecure: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(_GoogleLogin(AccessTokens()), insecure)

    def push_token(
        self,
        repository: ImageReference,
        pushed: Iterable[ImageReference] = (),
        pulled: Iterable[ImageReference] = (),
        role: PushRole | None = None,
    ) -> None:
        """See `Registry.push_token`: Google narrows tokens for Cloud Storage alone,
        https://cloud.google.com/iam/docs/downscoping-short-lived-credentials.
        """

    def prepare(self, repository: ImageReference) -> None:
        """See `Registry.prepare`: `UserError` if the repository is missing, `PermissionDenied` if
        one may not push.

        The login for pushing is asked for, so that it is known before the build.
        """
        self._get(repository, repository.tag or "latest", _PUSH)

    def _ask(
        self,
        method: str,
        reference: ImageReference,
        name: str,
        actions: str,
        manifest: Answer | None = None,
    ) -> Answer:
        place = _Place.of(reference)
        try:
            answer = super()._ask(method, reference, name, actions, manifest)
        except PermissionDenied as error:  # of the server that gives tokens
            raise place.denied(error.message, actions) from None
        if _says(answer.body, _NO_REPOSITORY):
            raise place.missing()
        if answer.status in (401, 403) and answer.body:
            raise place.denied(failure(answer, reference, actions).message, actions)
        return answer


def _says(body: bytes, words: Sequence[bytes]) -> bool:
    """Whether these words are in it, in their order."""
    at = 0
    for word in words:
        at = body.find(word, at)
        if at < 0:
            return False
    return True


@dataclass(frozen=True)
class _GoogleLogin:
    """User and password for every host: the latter is the default credentials' access token."""

    tokens: AccessTokens

    def login(self, repository: ImageReference) -> Login:
        token = self.tokens.current()
        return Login(Credentials(_USER, token.text, expires=token.expires))


@dataclass(frozen=True)
class _Place:
    """Where an image lies, in Google's terms."""

    location: str
    project: str
    repository: str

    @classmethod
    def of(cls, reference: ImageReference) -> Self:
        """Of an image reference; `UserError` if it names a repository and no image in it."""
        parts = reference.path.split("/")
        of_domain = "." in parts[0]  # a project `example.com:name` is written as example.com/name
        project, names = (":".join(parts[:2]), parts[2:]) if of_domain else (parts[0], parts[1:])
        if len(names) < 2:
            raise UserError(
                f"{reference.repository} names no image in a repository of Artifact Registry",
                f"write {reference.registry}/PROJECT/REPOSITORY/IMAGE",
            )
        return cls(reference.registry.removesuffix(_HOST_END), project, names[0])

    def missing(self) -> UserError:
        """Return the error for a repository that is not there."""
        return UserError(
            f"There is no repository {self.repository} in {self.location} in the project {self.project}",
            f"gcloud artifacts repositories create {self.repository} --repository-format=docker {self._flags}",
        )

    def denied(self, said: str, actions: str) -> PermissionDenied:
        """Return the error that the worker lacks a permission on the repository: the one that the
        registry names, if it does.
        """
        action = permission_named(said) or _NEEDS.get(actions, _NEEDS_TO_DELETE)
        resource = (
            f"projects/{self.project}/locations/{self.location}/repositories/{self.repository}"
        )
        hint = f"grant {machine()}'s service account a role that has {action}: `imagemill permissions` prints those"
        return PermissionDenied(said, hint, action, resource)

    @property
    def _flags(self) -> str:
        return f"--location={self.location} --project={self.project}"
