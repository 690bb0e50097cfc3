"""A client of any registry that speaks the OCI distribution API: all of them, as far as manifests
go.

An image is absent only if the registry itself says so; anything but a clear answer is an error.
The API: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md.
"""

import hashlib
import time
from collections.abc import Iterable

from imagemill.errors import ImagemillError, OperatorError, PermissionDenied, TransientError
from imagemill.http import Answer, is_loopback, origin, request, speaks_http
from imagemill.ports import Credentials, PushRole
from imagemill.reference import DOCKER_HUB, ImageReference, is_digest
from imagemill.registries.authorization import Authorizations, CredentialSource
from imagemill.registries.failures import failure, says_absent

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEXES = (INDEX, MANIFEST_LIST)

MANIFEST_TYPES = (
    *INDEXES,
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

LASTING = 30 * 60.0
"""Seconds that a token is good for, at least, if a build is to push with it. It is renewed when half
of them are over, so that a push has the other half: no one asks for another while it goes on."""

_ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}
_DIGEST = "Docker-Content-Digest"
_PULL, _PUSH, _DELETE = "pull", "pull,push", "pull,push,delete"


class OciRegistry:
    """Registries at any hosts, with one source of credentials; `insecure` are the hosts that speak
    plain HTTP.

    On this machine itself (`localhost`, 127.0.0.0/8, `[::1]`) plain HTTP is tried, as Docker does.
    Tokens are kept while they are valid, so keep the instance; threads may share it.
    """

    def __init__(self, source: CredentialSource, insecure: frozenset[str] = frozenset()) -> None:
        self._source = source
        self._plain = set(insecure)
        self._authorizations = Authorizations(source, insecure)

    def digest(self, reference: ImageReference) -> str | None:
        """See `Registry.digest`; with neither tag nor digest it is that of the tag `latest`."""
        name = reference.digest or reference.tag or "latest"
        try:
            return self._found(reference, name, _PULL)
        except PermissionDenied as refusal:
            if not self._authorizations.login(reference).credentials:
                raise
            # Many let nobody read a repository that is not there yet: whoever may push to it is
            # told that it is not.
            try:
                return self._found(reference, name, _PUSH)
            except PermissionDenied:
                raise refusal from None

    def tag(self, reference: ImageReference, tags: tuple[str, ...]) -> None:
        """See `Registry.tag`; `ValueError` if `reference` has no digest.

        A tag that is there already, of the same manifest, is not written again: it may be
        immutable.
        """
        if reference.digest is None:
            raise ValueError(f"{reference} has no digest")
        targets = [reference.with_digest(None).with_tag(tag) for tag in tags]
        missing = [target for target in targets if self.digest(target) != reference.digest]
        if not missing:
            return
        manifest = self._get(reference, reference.digest, _PUSH)
        if manifest is None:
            raise TransientError(f"{reference} is not in the registry any more", "build it again")
        check_content(manifest.body, reference)
        for target in missing:
            self._put(target, manifest, reference.digest)

    def credentials(self, repository: ImageReference) -> Credentials | None:
        """See `Registry.credentials`."""
        return self._source.login(repository).credentials

    def push_token(
        self,
        repository: ImageReference,
        pushed: Iterable[ImageReference] = (),
        pulled: Iterable[ImageReference] = (),
        role: PushRole | None = None,
    ) -> Credentials | None:
        """See `Registry.push_token`: where the registry has a server of tokens, whose tokens last."""
        login = self._source.login(repository)
        if login.credentials is None or login.credentials.registry_token:
            return None
        url = f"{self._base(repository.registry)}/v2/"
        refusal = request("GET", url, {}, reach=self._authorizations.reach)
        if refusal.status != 401 or origin(refusal.url) != origin(url):
            return None
        scopes = [f"repository:{each.path}:{_PUSH}" for each in (repository, *pushed)]
        scopes += [f"repository:{each.path}:{_PULL}" for each in pulled]
        found = self._authorizations.scoped(refusal, repository, list(dict.fromkeys(scopes)), login)
        if found is None or self._lifetime(*found) < LASTING:
            return None
        expires = time.time() + self._lifetime(*found)
        return Credentials("", "", expires=expires, registry_token=found[0], is_narrow=True)

    def _lifetime(self, token: str, told: float | None) -> float:
        """Return for how many seconds a token is good."""
        return told or 0.0

    def prepare(self, repository: ImageReference) -> None:
        """See `Registry.prepare`: a repository comes into being with the first push."""

    def delete(self, reference: ImageReference) -> None:
        """See `Registry.delete`; `ValueError` if `reference` has no tag. The manifest stays, and
        its other tags.

        `OperatorError` if the registry cannot delete tags: it need not (specification, "Deleting
        tags").
        """
        if reference.tag is None:
            raise ValueError(f"{reference} has no tag")
        answer = self._ask("DELETE", reference, reference.tag, _DELETE)
        if answer.status in (400, 405):
            raise OperatorError(
                f"{reference.registry} cannot delete tags: it answers {answer.status} for {reference}",
                "delete it with the registry's own tools, or let the registry allow it",
            )
        if answer.status != 202 and not says_absent(answer):
            raise self._failure(answer, reference, _DELETE)

    def _found(self, reference: ImageReference, name: str, actions: str) -> str | None:
        """Return the digest of the manifest `name`, asked for by the right to do these actions."""
        head = self._ask("HEAD", reference, name, actions)
        if head.status == 200 and _DIGEST in head.headers:
            return _checked(head.headers[_DIGEST], reference)
        if head.status == 429 or head.status >= 500:
            raise self._failure(head, reference, actions)
        # A HEAD has no words. Only a GET tells an absent image from a server that is no registry,
        # or why it is denied.
        manifest = self._get(reference, name, actions)
        return check_content(manifest.body, reference) if manifest else None

    def _get(self, reference: ImageReference, name: str, actions: str) -> Answer | None:
        """Return the manifest `name`; None if the registry says that it has none."""
        answer = self._ask("GET", reference, name, actions)
        if says_absent(answer):
            return None
        if answer.status != 200 or answer.media_type not in MANIFEST_TYPES:
            raise self._failure(answer, reference, actions)
        return answer

    def _put(self, target: ImageReference, manifest: Answer, digest: str) -> None:
        """Store the same bytes under the tag of `target`."""
        answer = self._ask("PUT", target, target.tag or "", _PUSH, manifest)
        if answer.status != 201:
            raise self._failure(answer, target, _PUSH)
        stored = answer.headers.get(_DIGEST) or self.digest(target)
        if stored != digest:
            raise TransientError(
                f"{target} was given {digest}, and is {stored}",
                "does something else push this tag?",
            )

    def _ask(
        self,
        method: str,
        reference: ImageReference,
        name: str,
        actions: str,
        manifest: Answer | None = None,
    ) -> Answer:
        """Return the registry's answer about the manifest `name`, after logging in where it asks
        for that.
        """
        url = f"{self._base(reference.registry)}/v2/{reference.path}/manifests/{name}"
        headers = {"Content-Type": manifest.media_type} if manifest else _ACCEPT
        body = manifest.body if manifest else None
        login, reach = self._authorizations.headers(reference, actions), self._authorizations.reach
        answer = request(method, url, headers | login, body, reach)
        if answer.status == 401 and origin(answer.url) == origin(url):
            login = self._authorizations.renew(answer, reference, actions)
            answer = request(method, url, headers | login, body, reach)
        return answer

    def _failure(self, answer: Answer, reference: ImageReference, actions: str) -> ImagemillError:
        return failure(answer, reference, actions, self._authorizations.login(reference).fault)

    def _base(self, host: str) -> str:
        if host not in self._plain and is_loopback(host) and speaks_http(host):
            self._plain.add(host)
        scheme = "http" if host in self._plain else "https"
        return f"{scheme}://{endpoint(host)}"


def endpoint(registry: str) -> str:
    """Return the host that serves a registry's API: Docker Hub's is not the one in its image
    references.
    """
    return "registry-1.docker.io" if registry == DOCKER_HUB else registry


def check_content(content: bytes, reference: ImageReference) -> str:
    """Return the digest of what a registry has answered with; `TransientError` where it is not the
    one that was asked for.
    """
    algorithm = (reference.digest or "sha256").partition(":")[0]
    return _checked(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}", reference)


def _checked(digest: str, reference: ImageReference) -> str:
    """Return the digest that a registry answers with: it must be one, and the one that was asked
    for.
    """
    if not is_digest(digest) or reference.digest not in (None, digest):
        raise TransientError(
            f"{reference.registry} answers with the digest {digest!r} when asked for {reference}",
            "the registry, or a cache in front of it, is damaged",
        )
    return digest
