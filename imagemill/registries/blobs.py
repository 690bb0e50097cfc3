"""Reads and writes whole images through the distribution API: manifests, configs and layers.

The API: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md. It is the same at
every registry, whatever its cloud: only the credentials differ, and they are the registry's own.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import urlencode

from urllib3 import HTTPHeaderDict

from imagemill.addresses import Reach
from imagemill.errors import PermissionDenied, TransientError
from imagemill.http import Answer, Reply, leads, opened, origin, redirected, request
from imagemill.meter import Meter
from imagemill.ports import Progress, Registry
from imagemill.reference import ImageReference
from imagemill.registries.authorization import Login
from imagemill.registries.oci import OciRegistry, check_content

_PULL, _PUSH = "pull", "pull,push"
_CHUNK = 1 << 20
_BINARY = {"Content-Type": "application/octet-stream"}


class StoredManifest(NamedTuple):
    """A manifest as the registry has it."""

    media_type: str
    body: bytes


class Blobs(OciRegistry):
    """What one registry stores. Errors are those of `Registry`."""

    def __init__(self, registry: Registry, insecure: frozenset[str] = frozenset()) -> None:
        super().__init__(_OfRegistry(registry), insecure)
        self._registry = registry

    def prepare(self, repository: ImageReference) -> None:
        """See `Registry.prepare`."""
        self._registry.prepare(repository)

    def manifest(self, reference: ImageReference) -> StoredManifest | None:
        """Return the manifest of a tag or digest; None if the registry says that it has none."""
        answer = self._get(reference, reference.digest or reference.tag or "latest", _PULL)
        if answer is None:
            return None
        check_content(answer.body, reference)
        return StoredManifest(answer.media_type, answer.body)

    def put_manifest(self, reference: ImageReference, manifest: StoredManifest, name: str) -> None:
        """Store a manifest, whose digest is `name`, under the tag of `reference`."""
        answer = Answer(
            200, HTTPHeaderDict({"Content-Type": manifest.media_type}), manifest.body, ""
        )
        self._put(reference, answer, name)

    def read(self, reference: ImageReference, digest: str) -> bytes:
        """Return a small blob, such as a config."""
        with self._opened("GET", reference, f"blobs/{digest}", _PULL) as reply:
            answer = reply.answer()
            if answer.status != 200:
                raise self._failure(answer, reference, _PULL)
            check_content(answer.body, reference.with_digest(digest))
            return answer.body

    @contextmanager
    def open(self, reference: ImageReference, digest: str) -> Iterator[io.BufferedReader]:
        """Open a blob to be read once, from its beginning."""
        with self._opened("GET", reference, f"blobs/{digest}", _PULL) as reply:
            if reply.status != 200:
                raise self._failure(reply.answer(), reference, _PULL)
            stream = io.BufferedReader(_Stream(reply.chunks(_CHUNK)), _CHUNK)
            with closing(stream):
                yield cast("io.BufferedReader", stream)

    def has(self, reference: ImageReference, digest: str) -> bool:
        """Return whether the repository has a blob."""
        answer = self._request("HEAD", reference, f"blobs/{digest}", _PUSH)
        if answer.status in (200, 404):
            return answer.status == 200
        raise self._failure(answer, reference, _PUSH)

    def mount(self, reference: ImageReference, digest: str, source: ImageReference) -> bool:
        """Have the repository hold a blob of another one, without sending it; False if the registry
        would rather be sent it: some say so with a 4xx, or give no token for both.
        """
        query = urlencode({"mount": digest, "from": source.path})
        try:
            answer = self._request("POST", reference, f"blobs/uploads/?{query}", _PUSH, source.path)
        except PermissionDenied:
            return False
        if answer.status == 202:
            # An upload that was not asked for has begun: it is let go.
            if location := answer.headers.get("Location"):
                url, headers, reach = self._upload(
                    "DELETE", answer, location, reference, source.path
                )
                request("DELETE", url, headers, None, reach)
            return False
        if answer.status != 201 and not (400 <= answer.status < 500 and answer.status != 429):
            raise self._failure(answer, reference, _PUSH)
        return answer.status == 201

    def push(
        self,
        reference: ImageReference,
        digest: str,
        content: BinaryIO,
        size: int,
        progress: Progress | None = None,
    ) -> None:
        """Store a blob of `size` bytes, whose digest is known; `progress` is told how much is sent."""
        begun = self._request("POST", reference, "blobs/uploads/", _PUSH)
        location = begun.headers.get("Location")
        if begun.status != 202 or not location:
            raise self._failure(begun, reference, _PUSH)
        url, own, reach = self._upload("PUT", begun, location, reference)
        separator = "&" if "?" in url else "?"
        headers = {**_BINARY, "Content-Length": str(size), **own}
        full = f"{url}{separator}{urlencode({'digest': digest})}"
        body = Meter("pushed", progress).reading(content) if progress else content
        answer = request("PUT", full, headers, body, reach)
        if answer.status != 201:
            raise self._failure(answer, reference, _PUSH)
        stored = answer.headers.get("Docker-Content-Digest", digest)
        if stored != digest:
            raise TransientError(
                f"{reference.registry} was sent {digest}, and says that it has {stored}",
                "the registry, or what is between, is damaged",
            )

    def _upload(
        self,
        method: str,
        begun: Answer,
        location: str,
        reference: ImageReference,
        pulled: str = "",
    ) -> tuple[str, dict[str, str], Reach]:
        """Return where an upload goes, by the rules of redirects, and the credentials for it, which
        are for the registry alone.
        """
        url = redirected(begun.url, location)
        reach = leads(method, begun.url, url, self._authorizations.reach, begun.beyond)
        if origin(url) != origin(begun.url):
            return url, {}, reach
        return url, self._authorizations.headers(reference, _PUSH, pulled), reach

    def _request(
        self, method: str, reference: ImageReference, path: str, actions: str, pulled: str = ""
    ) -> Answer:
        with self._opened(method, reference, path, actions, pulled) as reply:
            return reply.answer()

    @contextmanager
    def _opened(
        self, method: str, reference: ImageReference, path: str, actions: str, pulled: str = ""
    ) -> Iterator[Reply]:
        """Open the registry's answer, after logging in where it asks for that: also for pulling
        from another repository, `pulled`.
        """
        url = f"{self._base(reference.registry)}/v2/{reference.path}/{path}"
        body = b"" if method == "POST" else None
        headers: Mapping[str, str] = self._authorizations.headers(reference, actions, pulled)
        with opened(method, url, headers, body, self._authorizations.reach) as reply:
            if reply.status != 401 or origin(reply.url) != origin(url):
                yield reply
                return
            refusal = reply.answer()
        headers = self._authorizations.renew(refusal, reference, actions, pulled)
        with opened(method, url, headers, body, self._authorizations.reach) as reply:
            yield reply


class _OfRegistry:
    """The credentials that a registry is pushed to with."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def login(self, repository: ImageReference) -> Login:
        return Login(self._registry.credentials(repository))


class _Stream(io.RawIOBase):
    """Chunks as a stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._left = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size
