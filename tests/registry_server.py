"""A registry of the process of the test, as far as the OCI distribution specification
(https://github.com/opencontainers/distribution-spec) is used here: it lets everybody in.
"""

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from web import Request, Response, Web, serve


@dataclass
class Repository:
    """What is kept under one name."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Media type and text, by digest and by tag."""


@dataclass
class RegistryServer:
    """A running registry at `address`; the next requests are answered by `faults` first."""

    web: Web = field(init=False)
    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: list[Response] = field(default_factory=list)
    absent: set[str] = field(default_factory=set)
    """Repositories that are not there, and do not come into being with a push."""

    @property
    def address(self) -> str:
        return self.web.address

    def answer(self, request: Request) -> Response:
        """Answer as a registry does."""
        path = urlsplit(request.path).path.removeprefix("/v2/")
        if not path:
            return Response()
        if self.faults:
            return self.faults.pop(0)
        name, kind, reference = path.rsplit("/", 2)
        if name.removesuffix("/blobs") in self.absent:
            return Response(404, body=b'{"errors": [{"code": "NAME_UNKNOWN"}]}')
        if kind == "manifests":
            return self._manifest(request, self._repository(name), reference)
        if kind == "uploads":
            return self._upload(request, name.removesuffix("/blobs"))
        return self._blob(request, self._repository(name), reference)

    def _repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def _manifest(self, request: Request, repository: Repository, reference: str) -> Response:
        if request.method == "PUT":
            digest = f"sha256:{hashlib.sha256(request.body).hexdigest()}"
            kept = request.headers["content-type"], request.body
            repository.manifests |= {digest: kept, reference: kept}
            return Response(201, {"Docker-Content-Digest": digest})
        if reference not in repository.manifests:
            return Response(404, body=b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
        media_type, text = repository.manifests[reference]
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        return Response(200, {"Content-Type": media_type, "Docker-Content-Digest": digest}, text)

    def _upload(self, request: Request, name: str) -> Response:
        if request.method == "POST":
            mounted, other = (request.query.get(key, [""])[0] for key in ("mount", "from"))
            if mounted in (found := self._repository(other).blobs):
                self._repository(name).blobs[mounted] = found[mounted]
                return Response(201)
            place = f"http://{self.address}/v2/{name}/blobs/uploads/{uuid.uuid4().hex}?_state=x"
            return Response(202, {"Location": place})
        if request.method == "DELETE":
            return Response(204)
        content, (digest,) = request.body, request.query["digest"]
        assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._repository(name).blobs[digest] = content
        return Response(201)

    def _blob(self, request: Request, repository: Repository, digest: str) -> Response:
        if digest not in repository.blobs:
            return Response(404, body=b'{"errors": [{"code": "BLOB_UNKNOWN"}]}')
        return Response(200, {}, repository.blobs[digest])


@contextmanager
def registry_server() -> Iterator[RegistryServer]:
    """A registry for the length of the block."""
    registry = RegistryServer()
    with serve(registry.answer) as registry.web:
        yield registry
