"""What tests of builders need: packed contexts, images as a registry has them, and a step that is
told to stop.
"""

import gzip
import io
import json
import tarfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagemill.context.handover import Packed
from imagemill.errors import BuildCancelled
from imagemill.messages import State
from imagemill.reference import ImageReference

SHELL = """\
FROM scratch AS shell
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-c"]
"""
"""How Dockerfiles of tests begin that run commands: three lines, no network."""

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def packed(dockerfile: str, files: Mapping[str, bytes | Path]) -> Packed:
    """A packed context, laid out as docs/adr/0001-the-packed-context.md says; a `Path` is a program
    to be copied.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        _add(archive, "Dockerfile", dockerfile.encode())
        _add(archive, "Dockerfile.dockerignore", b"")
        folder = tarfile.TarInfo("context")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        for name, content in files.items():
            program = isinstance(content, Path)
            _add(
                archive,
                f"context/{name}",
                content.read_bytes() if isinstance(content, Path) else content,
                program,
            )
    stream.seek(0)
    return Packed(lambda: stream)


def _add(archive: tarfile.TarFile, name: str, content: bytes, program: bool = False) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o755 if program else 0o644, 400_000_000
    archive.addfile(member, io.BytesIO(content))


@dataclass(frozen=True)
class PushedImage:
    """An image in an open registry that speaks HTTP."""

    reference: ImageReference

    @property
    def manifest(self) -> dict[str, Any]:
        """The image's manifest."""
        name = self.reference.digest or self.reference.tag
        document: dict[str, Any] = json.loads(self._get(f"manifests/{name}"))
        return document

    @property
    def config(self) -> dict[str, Any]:
        """The image's config blob."""
        document: dict[str, Any] = json.loads(
            self._get(f"blobs/{self.manifest['config']['digest']}")
        )
        return document

    @property
    def labels(self) -> dict[str, str]:
        """The image's labels."""
        return self.config["config"].get("Labels") or {}

    @property
    def layers(self) -> bytes:
        """All layers, unpacked, one after the other."""
        return b"".join(self._layer(layer["digest"]) for layer in self.manifest["layers"])

    @property
    def files(self) -> dict[str, bytes]:
        """Path and content of all files that the layers bring."""
        found: dict[str, bytes] = {}
        for layer in self.manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(self._layer(layer["digest"]))) as archive:
                for member in archive.getmembers():
                    content = None if member.issym() else archive.extractfile(member)
                    if content:
                        found[member.name] = content.read()
        return found

    def _layer(self, digest: str) -> bytes:
        blob = self._get(f"blobs/{digest}")
        return gzip.decompress(blob) if blob.startswith(b"\x1f\x8b") else blob

    def _get(self, path: str) -> bytes:
        url = f"http://{self.reference.registry}/v2/{self.reference.path}/{path}"
        request = urllib.request.Request(url, headers={"Accept": MANIFEST})
        with urllib.request.urlopen(request) as answer:
            content: bytes = answer.read()
        return content


@dataclass
class Watched:
    """A `Progress` that keeps everything; from the moment that `stop_at` is in the log, it tells to
    stop.
    """

    stop_at: str | None = None
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    amounts: list[str] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    on: dict[str, Callable[[], object]] = field(default_factory=dict)
    """What to do, in the middle of things, when a line is logged or a state is entered."""

    def log(self, line: str) -> None:
        self.lines.append(line)
        self.on.get(line, lambda: None)()

    def warn(self, line: str) -> None:
        self.warnings.append(line)
        self.log(line)

    def amount(self, text: str) -> None:
        self.amounts.append(text)

    def check(self) -> None:
        if self.stop_at is not None and self.stop_at in self.lines:
            raise BuildCancelled("The build was cancelled", "submit it again")

    def enter(self, state: State) -> None:
        self.states.append(state)
        self.on.get(state, lambda: None)()

    def remaining(self) -> float:
        return float("inf")


def processes(text: str) -> list[str]:
    """The command lines of this machine's processes that have `text` in them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if text in line:
            found.append(line)
    return found


def until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether the condition comes true within some time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
