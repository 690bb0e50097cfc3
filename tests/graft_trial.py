"""Makes a case's images twice, without a builder and with BuildKit, and says how they differ."""

import hashlib
import io
import json
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from redis import Redis

import graft_cases
from builds import PushedImage
from graft_recording import Files, Recorded, Recording
from imagemill import context
from imagemill.builders.graft import Refusal, grafting
from imagemill.builders.graft.grafting import Graft, GraftPlace, Question
from imagemill.builders.graft.source import SourceFiles
from imagemill.config.model import AutoBuilder
from imagemill.context import Manifest
from imagemill.context.hashing import Inputs
from imagemill.messages import BuildRequest
from imagemill.ports import BuildInputs, Quiet
from imagemill.reference import ImageReference
from imagemill.registries import blobs_for
from imagemill.registries.docker_config import DockerConfig
from imagemill.state.grafts import Earlier, Grafts, RedisShelf
from imagemill.why import record as recording


class Outcome(NamedTuple):
    """How one edit went."""

    seed: int
    edit: int
    refused: str | None
    """The reason; None if an image was made."""
    wrong: str | None
    """How it differs from BuildKit's."""


class Made(NamedTuple):
    """A case whose image BuildKit has made."""

    name: str
    """Of the project's folder and of the repository."""
    base: str
    recorded: Recorded | None = None


class Before(NamedTuple):
    """An image that BuildKit has made."""

    image: Earlier
    key: str


@dataclass(frozen=True)
class Trials:
    """Where they are made."""

    cli: str
    engine: str
    registry: str
    redis: Redis
    folder: Path
    busybox: Path
    cases: Callable[[int], graft_cases.Case] = graft_cases.case

    @cached_property
    def shell(self) -> str:
        """The image with the shell, in the registry."""
        folder, image = self.folder / "shell", f"{self.registry}/{uuid.uuid4().hex}:shell"
        folder.mkdir(exist_ok=True)
        (folder / "busybox").write_bytes(self.busybox.read_bytes())
        (folder / "busybox").chmod(0o755)
        self._docker("build", f"--tag={image}", "--file=-", str(folder), text=graft_cases.SHELL)
        self._docker("push", image)
        return image

    def outcomes(self, seed: int, recording: Recording | None = None) -> Iterator[Outcome]:
        """What becomes of all edits of a case, by BuildKit itself or by what it once made."""
        made = self._made(seed, recording) if recording else self._built(seed)
        if made is None:
            return  # BuildKit cannot build it either
        case, folder, name = self.cases(seed), self.folder / made.name, made.name
        old = self._ask(folder, f"{name}:old")
        old_image = PushedImage(ImageReference.parse(f"{self.registry}/{name}:old"))
        for number, edit in enumerate(case.edits):
            edit(folder)
            made_new = self._outcome(folder, name, number, old)
            if isinstance(made_new, str):
                yield Outcome(seed, number, made_new, None)
                continue
            theirs = made.recorded.edits[number] if made.recorded else self._exported(folder)
            wrong = (
                "BuildKit cannot build it"
                if theirs is None
                else _difference(flattened(made_new), theirs) or _settings(made_new, old_image)
            )
            yield Outcome(seed, number, None, wrong)

    def record(self, seed: int, recording: Recording) -> None:
        """Add a case to a recording, if BuildKit can build it."""
        made = self._built(seed)
        if made is None:
            return
        folder, images = self.folder / made.name, (made.base, f"{self.registry}/{made.name}:old")
        base, old = map(recording.add, images)
        edits = []
        for edit in self.cases(seed).edits:
            edit(folder)
            edits.append(self._exported(folder))
        recording.cases[seed] = Recorded(base, old, edits)

    def _built(self, seed: int) -> Made | None:
        """A case that BuildKit builds, in the registry."""
        case, name = self.cases(seed), f"case-{seed}-{uuid.uuid4().hex[:8]}"
        base = self.shell
        if case.parent is not None:
            base = f"{self.registry}/{name}-base:1"
            text = case.parent.replace("BASE", self.shell)
            self._docker(
                "build", f"--tag={base}", "--file=-", str(self.folder / "shell"), text=text
            )
            self._docker("push", base)
        folder = self._project(case, name, base)
        return Made(name, base) if self._build(folder, f"{self.registry}/{name}:old") else None

    def _made(self, seed: int, recording: Recording) -> Made:
        """A case that BuildKit once built, in the registry."""
        recorded = recording.cases[seed]
        name = f"case-{seed}-{uuid.uuid4().hex[:8]}"
        base = f"{self.registry}/{name}-base:1"
        recording.push(recorded.base, base)
        recording.push(recorded.old, f"{self.registry}/{name}:old")
        self._project(self.cases(seed), name, base)
        return Made(name, base, recorded)

    def _project(self, case: graft_cases.Case, name: str, base: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        (folder / "Dockerfile").write_text(case.dockerfile.replace("BASE", base))
        (folder / ".dockerignore").write_text(case.ignore)
        case.make(folder)
        return folder

    def built(self, folder: Path, name: str) -> Before:
        """BuildKit's image of a project, in the registry."""
        manifest, asked = self._ask(folder, f"{name}:old")
        assert isinstance(asked, Question), asked
        assert self._build(folder, f"{self.registry}/{name}:old")
        return Before(self._noted(name, manifest, asked), asked.key)

    def grafted(self, folder: Path, name: str, before: "Before") -> str:
        """Make the image `name` of a project by what was before; returns its digest."""
        manifest, asked = self._ask(folder, f"{name}:new")
        assert isinstance(asked, Question), asked
        with SourceFiles(folder, manifest, Quiet()) as files:
            graft = Graft(self._place(), self._inputs(f"{name}:new"), asked, Quiet())
            return graft.make(before.image, manifest, files.chunks, 1e9, lambda: None)

    def _outcome(self, folder: Path, name: str, number: int, old: Any) -> PushedImage | str:
        """Our image after an edit, or why there is none."""
        manifest, asked = self._ask(folder, f"{name}:{number}")
        if isinstance(asked, str):
            return asked
        if isinstance(old[1], str):
            return str(old[1])
        if asked.key != old[1].key:
            return "an earlier instruction sees what has changed"
        inputs = self._inputs(f"{name}:{number}")
        place = self._place()
        try:
            pinned = self._noted(name, *old)
            with SourceFiles(folder, manifest, Quiet()) as files:
                graft = Graft(place, inputs, asked, Quiet())
                made = graft.make(pinned, manifest, files.chunks, 1e9, lambda: None)
        except Refusal as refusal:
            return refusal.reason
        return PushedImage(ImageReference.parse(f"{self.registry}/{name}@{made}"))

    def _ask(self, folder: Path, image: str) -> tuple[Manifest, Question | str]:
        manifest = context.manifest(folder, None, Quiet())
        inputs = self._inputs(image)
        given = Inputs.of(BuildRequest(source="x"), AutoBuilder())
        try:
            return manifest, grafting.question(manifest, inputs, given, "docker", self._place())
        except Refusal as refusal:
            return manifest, refusal.reason

    def _noted(self, name: str, manifest: Manifest, asked: Question) -> Any:
        known = self._place().known
        if (found := known.find_image(asked.key)) is not None:
            return found
        image = ImageReference.parse(f"{self.registry}/{name}:old")
        blobs = self._place().registries(image)
        pinned = image.with_digest(blobs.digest(image))
        record = recording.record(BuildRequest(source="x"), AutoBuilder(), manifest)
        made = Earlier(pinned.pinned, (), record, asked.recipe.commands)
        grafting.note(made, asked.key, self._place(), Quiet())
        return known.find_image(asked.key)

    def _inputs(self, image: str) -> BuildInputs:
        return BuildInputs(ImageReference.parse(f"{self.registry}/{image}"))

    def _place(self) -> GraftPlace:
        docker_config = DockerConfig(self.folder / "none")
        return GraftPlace(
            lambda image: blobs_for(image.registry, docker_config),
            Grafts(RedisShelf(self.redis, f"{self.folder}:")),
            self.folder,
        )

    def _build(self, folder: Path, tag: str) -> bool:
        copied = self._copied(folder)
        done = self._docker("build", f"--tag={tag}", f"--file={copied}/Dockerfile",
                            f"{copied}/context", check=False)  # fmt: skip
        return done.returncode == 0 and self._docker("push", tag).returncode == 0

    def _exported(self, folder: Path) -> Files | None:
        """What BuildKit makes of it: the flattened files."""
        copied = self._copied(folder)
        done = self._docker("build", "--output=type=tar,dest=-", f"--file={copied}/Dockerfile",
                            f"{copied}/context", check=False)  # fmt: skip
        if done.returncode != 0:
            return None
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            return _files(archive)

    def _copied(self, folder: Path) -> Path:
        copied = self.folder / f"copied-{uuid.uuid4().hex}"
        context.copy(folder, None, copied, Quiet())
        return copied

    def _docker(
        self, *arguments: str, text: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {"PATH": "/usr/bin:/bin", "DOCKER_HOST": self.engine, "DOCKER_BUILDKIT": "1"}
        return subprocess.run(
            [self.cli, *arguments],
            input=text.encode() if text else None,
            env=environment,
            capture_output=True,
            check=check,
        )


def flattened(image: PushedImage) -> Files:
    """The files of an image: its layers, one over the other."""
    files: Files = {}
    for layer in image.manifest["layers"]:
        found = _layer(image, layer["digest"])
        for path in found:
            folder, _, name = path.rpartition("/")
            if name == ".wh..wh..opq":
                _drop(files, f"{folder}/")
            elif name.startswith(".wh."):
                gone = f"{folder}/{name[4:]}".lstrip("/")
                files.pop(gone, None)
                _drop(files, f"{gone}/")
        for path, node in found.items():
            if path.rpartition("/")[2].startswith(".wh."):
                continue
            if node[0] != "dir":
                _drop(files, f"{path}/")
            files[path] = node
        above = {str(folder) for path in found for folder in PurePosixPath(path).parents}
        files |= dict.fromkeys(above - found.keys() - {"."}, _NOT_NAMED)
    return files


_NOT_NAMED = "dir", "as whoever unpacks the layer likes it"


_known: dict[str, Files] = {}
"""Digest of a layer → its files: most images share some."""


def _layer(image: PushedImage, digest: str) -> Files:
    if digest not in _known:
        with tarfile.open(fileobj=io.BytesIO(image._layer(digest))) as archive:
            _known[digest] = _files(archive)
    return _known[digest]


def _drop(files: Files, prefix: str) -> None:
    for path in [path for path in files if path.startswith(prefix)]:
        del files[path]


def _files(archive: tarfile.TarFile) -> Files:
    found: Files = {}
    for member in archive.getmembers():
        path = member.name.strip("/").removeprefix("./")
        owner = (member.mode & 0o7777, member.uid, member.gid)
        if member.isdir():
            found[path] = ("dir", *owner)
        elif member.issym():
            found[path] = ("link", member.uid, member.gid, member.linkname)
        elif member.islnk():
            found[path] = found[member.linkname.strip("/").removeprefix("./")]
        else:
            content = archive.extractfile(member)
            digest = hashlib.sha256(content.read() if content else b"").hexdigest()
            found[path] = ("file", *owner, digest)
    found.pop("", None)
    return found


def _difference(mine: Files, theirs: Files) -> str | None:
    for path in sorted(mine.keys() | theirs.keys()):
        if mine.get(path) != theirs.get(path):
            return f"/{path}: we have {str(mine.get(path))[:100]}, BuildKit {str(theirs.get(path))[:100]}"
    return None


def _settings(mine: PushedImage, old: PushedImage) -> str | None:
    """The config does not depend on the context, but for the layers' digests and times."""
    one, two = _timeless(mine.config), _timeless(old.config)
    return None if one == two else f"config: {json.dumps(one)} and {json.dumps(two)}"


def _timeless(config: dict[str, Any]) -> dict[str, Any]:
    layers = len(config["rootfs"]["diff_ids"])
    history = [{k: v for k, v in entry.items() if k != "created"} for entry in config["history"]]
    settings = {**config["config"], "Labels": config["config"].get("Labels") or {}}
    return {**config, "created": "", "history": history, "rootfs": layers, "config": settings}
