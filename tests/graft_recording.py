"""What BuildKit has made of the cases of `graft_cases`, kept in a file, so that hundreds of them are
compared in seconds: each image as it was pushed, and the files after each edit.

    IMAGEMILL_TEST_RECORD_GRAFTS=120 pytest --timeout 3000 tests/integration/test_graft_differential.py

records the first 120 seeds anew with the engine that is there.
"""

import hashlib
import io
import json
import tarfile
import threading
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import graft_cases
from builds import MANIFEST, PushedImage
from imagemill.reference import ImageReference

RECORDING = Path(__file__).parent / "integration" / "graft_recording.tar.xz"

Files = dict[str, tuple[Any, ...]]
"""Path → all that is to be equal."""


class Recorded(NamedTuple):
    """What BuildKit has made of a case."""

    base: str
    """Digest of the base image's manifest."""
    old: str
    """Digest of the manifest of the image before all edits."""
    edits: list[Files | None]
    """The files after each; None where it cannot build it."""


def generator() -> str:
    """Return what tells whether a recording is of these cases."""
    of_cases = hashlib.sha256(Path(graft_cases.__file__).read_bytes())
    of_cases.update(graft_cases.case(0).dockerfile.encode())  # by this Python's random numbers
    return of_cases.hexdigest()


@dataclass
class Recording:
    """Cases by their seeds, those that BuildKit cannot build left out, and all blobs by their
    digests.
    """

    cases: dict[int, Recorded] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    """The blobs that the registry has, in the repository `recorded`."""
    sending: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def read(cls) -> Self:
        """Return the one that is kept; it has to be of these very cases."""
        with tarfile.open(RECORDING) as archive:
            contents = {name: archive.extractfile(name) for name in archive.getnames()}
            read = {name: file.read() for name, file in contents.items() if file}
        index = json.loads(read.pop("cases.json"))
        assert index["generator"] == generator(), f"record again: {__doc__}"
        cases = {
            int(seed): Recorded(base, old, [each and _tuples(each) for each in edits])
            for seed, (base, old, edits) in index["cases"].items()
        }
        return cls(cases, read)

    def write(self) -> None:
        """Keep this one."""
        index = {"generator": generator(), "cases": dict(sorted(self.cases.items()))}
        contents = {"cases.json": json.dumps(index).encode(), **self.blobs}
        with tarfile.open(RECORDING, "w:xz", preset=9) as archive:
            for name in sorted(contents):
                member = tarfile.TarInfo(name)
                member.size = len(contents[name])
                archive.addfile(member, io.BytesIO(contents[name]))

    def add(self, image: str) -> str:
        """Add an image of the registry; returns the digest of its manifest."""
        pushed = PushedImage(ImageReference.parse(image))
        content = pushed._get(f"manifests/{pushed.reference.tag}")
        for blob in _parts(content):
            if blob not in self.blobs:
                self.blobs[blob] = pushed._get(f"blobs/{blob}")
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return digest

    def push(self, digest: str, image: str) -> None:
        """Push an image as `image`."""
        reference = ImageReference.parse(image)
        registry = f"http://{reference.registry}/v2"
        for blob in _parts(self.blobs[digest]):
            with self.sending:  # a blob that is sent twice at once is not there for a moment
                if blob not in self.sent:
                    begun = _send("POST", f"{registry}/recorded/blobs/uploads/", b"")
                    _send("PUT", f"{begun}&digest={blob}", self.blobs[blob])
                    self.sent.add(blob)
            mount = f"?mount={blob}&from=recorded"
            _send("POST", f"{registry}/{reference.path}/blobs/uploads/{mount}", b"")
        url = f"{registry}/{reference.path}/manifests/{reference.tag}"
        _send("PUT", url, self.blobs[digest])


def _parts(manifest: bytes) -> list[str]:
    document = json.loads(manifest)
    return [part["digest"] for part in (document["config"], *document["layers"])]


def _tuples(files: dict[str, list[Any]]) -> Files:
    return {path: tuple(node) for path, node in files.items()}


def _send(method: str, url: str, content: bytes) -> str:
    """Send to the registry; returns where it says to go on."""
    kind = MANIFEST if "/manifests/" in url else "application/octet-stream"
    request = urllib.request.Request(url, content, {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(request) as answer:
        return str(answer.headers["Location"])
