"""Amazon's Elastic Container Registry, asked through its own API.

The permissions that are usual for pushing (docs of the launch agent) have no `ecr:BatchGetImage`,
without which a registry answers no request for a manifest: so a tag is looked up with
`DescribeImages`, and only further tags need more. Account and region are those of the host in the
image reference. https://docs.aws.amazon.com/AmazonECR/latest/APIReference/Welcome.html
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import botocore.exceptions as sdk

from imagemill.clouds import aws
from imagemill.clouds.ecr import LOGIN, PULL, PUSH, decoded_login, repository_arn
from imagemill.clouds.hosts import ECR
from imagemill.errors import (
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.ports import Credentials, PushRole
from imagemill.reference import ImageReference, is_digest
from imagemill.registries.oci import MANIFEST_TYPES

RENEW_BEFORE = 60 * 60.0
"""Seconds before their end at which credentials are not handed out any more; they live for 12
hours.

A build may push at its end with what it was given at its beginning.
"""

_ABSENT = frozenset({"ImageNotFoundException", "RepositoryNotFoundException"})
_TAKEN = frozenset({"ImageAlreadyExistsException", "ImageTagAlreadyExistsException"})


class EcrRegistry:
    """The registries of all accounts and regions, with boto3's default credentials; threads may
    share it.
    """

    def __init__(
        self, docker_config: object = None, insecure: frozenset[str] = frozenset()
    ) -> None:
        self._credentials: dict[tuple[str, str], Credentials] = {}

    def digest(self, reference: ImageReference) -> str | None:
        """See `Registry.digest`; with neither tag nor digest it is that of the tag `latest`."""
        with _asked("DescribeImages", reference):
            try:
                answer = _client(reference).describe_images(
                    **_names(reference), imageIds=[_image(reference)]
                )
            except sdk.ClientError as error:
                if aws.code_of(error) in _ABSENT:
                    return None
                raise
        return _checked(
            {image.get("imageDigest", "") for image in answer["imageDetails"]}, reference
        )

    def tag(self, reference: ImageReference, tags: tuple[str, ...]) -> None:
        """See `Registry.tag`; `ValueError` if `reference` has no digest.

        A tag that is there already, of the same image, is not written again: it may be immutable.
        `UserError` if it is immutable and of another image.
        """
        if reference.digest is None:
            raise ValueError(f"{reference} has no digest")
        targets = [reference.with_digest(None).with_tag(tag) for tag in tags]
        missing = [target for target in targets if self.digest(target) != reference.digest]
        if not missing:
            return
        manifest = _manifest(reference)
        for target in missing:
            self._put(target, manifest, reference.digest)

    def credentials(self, repository: ImageReference) -> Credentials:
        """See `Registry.credentials`; they are for all repositories of the region that we may push
        to.
        """
        key = (_part(repository, "region"), _part(repository, "fips"))
        known = self._credentials.get(key)
        if known is None or known.expires is None or known.expires - time.time() < RENEW_BEFORE:
            known = self._credentials[key] = _login(repository)
        return known

    def push_token(
        self,
        repository: ImageReference,
        pushed: Iterable[ImageReference] = (),
        pulled: Iterable[ImageReference] = (),
        role: PushRole | None = None,
    ) -> Credentials | None:
        """See `Registry.push_token`: ECR's tokens have all rights of whoever asks for them. So it
        is a session of the role that does, whose policy has these repositories alone.
        """
        if role is None:
            return None
        rights = [(repository, PUSH), *((each, (*PULL, *PUSH)) for each in pushed)]
        rights += [(each, PULL) for each in pulled]
        statements = [_statement((LOGIN,), "*")]
        statements += [_statement(actions, _arn(each)) for each, actions in rights]
        region, fips = _part(repository, "region"), bool(_part(repository, "fips"))
        session = aws.assume(role.name, role.session, statements, region)
        login = _login(repository, session.client("ecr", region, fips=fips or None))
        expires = min(session.expires, login.expires or session.expires)
        return replace(login, expires=expires, is_narrow=True)

    def prepare(self, repository: ImageReference) -> None:
        """See `Registry.prepare`: the repository is made if it is not there, with the account's own
        defaults.
        """
        if self.has(repository):
            return
        with _asked("CreateRepository", repository):
            try:
                _client(repository).create_repository(**_names(repository))
            except sdk.ClientError as error:
                if (
                    aws.code_of(error) != "RepositoryAlreadyExistsException"
                ):  # another worker was quicker
                    raise

    def has(self, repository: ImageReference) -> bool:
        """Whether the repository is there."""
        with _asked("DescribeRepositories", repository):
            try:
                account = _part(repository, "account")
                _client(repository).describe_repositories(
                    registryId=account, repositoryNames=[repository.path]
                )
            except sdk.ClientError as error:
                if aws.code_of(error) in _ABSENT:
                    return False
                raise
        return True

    def delete(self, reference: ImageReference) -> None:
        """See `Registry.delete`; an image that has no other tag goes with its tag."""
        with _asked("BatchDeleteImage", reference):
            try:
                answer = _client(reference).batch_delete_image(
                    **_names(reference), imageIds=[_image(reference)]
                )
            except sdk.ClientError as error:
                if aws.code_of(error) in _ABSENT:
                    return
                raise
        for failure in answer.get("failures", ()):
            if failure["failureCode"] != "ImageNotFound":
                raise OperatorError(
                    f"{reference} cannot be deleted: {failure['failureCode']} {failure.get('failureReason', '')}",
                    "see what refers to it in the registry",
                )

    def _put(self, target: ImageReference, manifest: dict[str, str], digest: str) -> None:
        with _asked("PutImage", target):
            try:
                _client(target).put_image(
                    **_names(target), **manifest, imageTag=target.tag, imageDigest=digest
                )
                return
            except sdk.ClientError as error:
                if aws.code_of(error) not in _TAKEN:
                    raise
        found = self.digest(target)
        if found != digest:
            raise UserError(
                f"The tag {target} cannot be moved from {found} to {digest}: tags are immutable in this repository",
                "ask for another tag, or make this one mutable in the settings of the repository",
            )


def _manifest(reference: ImageReference) -> dict[str, str]:
    """Return the manifest of the digest in `reference`, as the arguments of `PutImage`."""
    try:
        with _asked("BatchGetImage", reference):
            answer = _client(reference).batch_get_image(
                **_names(reference),
                imageIds=[_image(reference)],
                acceptedMediaTypes=list(MANIFEST_TYPES),
            )
    except PermissionDenied as error:
        hint = (
            f"{error.hint}: an image is given further tags with it, and with ecr:PutImage; "
            "or ask for no further tags"
        )
        raise PermissionDenied(error.message, hint, error.action, error.resource) from error
    for image in answer["images"]:
        return {
            name: image[name]
            for name in ("imageManifest", "imageManifestMediaType")
            if image.get(name)
        }
    raise TransientError(f"{reference} is not in the registry any more", "build it again")


def _login(repository: ImageReference, client: Any = None) -> Credentials:
    with _asked("GetAuthorizationToken", repository, "*"):
        found = (client or _client(repository)).get_authorization_token()
    [data] = found["authorizationData"]
    return decoded_login(data)


@contextmanager
def _asked(action: str, reference: ImageReference, resource: str = "") -> Iterator[None]:
    """Raise ECR's errors as our own; `resource` is what a policy grants the action on, if not the
    repository.
    """
    with aws.translated(f"ecr:{action}", resource or _arn(reference)):
        try:
            yield
        except sdk.ClientError as error:
            said = error.response["Error"].get("Message", "")
            if aws.code_of(error) == "LimitExceededException":
                raise OperatorError(
                    f"{reference}: {said}", "ask AWS for a higher quota, or remove something"
                ) from error
            if aws.code_of(error) == "InvalidParameterException":
                raise UserError(
                    f"ECR does not take {reference}: {said}", "choose another name"
                ) from error
            raise


def _client(reference: ImageReference) -> Any:
    return aws.client(
        "ecr", _part(reference, "region"), fips=bool(_part(reference, "fips")) or None
    )


def _part(reference: ImageReference, name: str) -> str:
    match = ECR.fullmatch(reference.registry)
    if match is None:
        raise ValueError(f"{reference.registry} is not a host of ECR")
    return match[name] or ""


def _arn(reference: ImageReference) -> str:
    arn = repository_arn(reference)
    if arn is None:
        raise ValueError(f"{reference.registry} is not a host of ECR")
    return arn


def _statement(actions: Sequence[str], resource: str) -> dict[str, object]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource}


def _names(reference: ImageReference) -> dict[str, str]:
    return {"registryId": _part(reference, "account"), "repositoryName": reference.path}


def _image(reference: ImageReference) -> dict[str, str]:
    """Return the image, as ECR's API names it: a digest wins over a tag."""
    if reference.digest:
        return {"imageDigest": reference.digest}
    return {"imageTag": reference.tag or "latest"}


def _checked(digests: set[str], reference: ImageReference) -> str:
    """Return the one digest that ECR answers with: it must be one, and the one that was asked for."""
    if (
        len(digests) != 1
        or not all(is_digest(digest) for digest in digests)
        or reference.digest not in (None, *digests)
    ):
        raise ServiceUnreachable(
            f"ECR answers with the digests {sorted(digests)} when asked for {reference}",
            "see what is between",
        )
    return digests.pop()
