"""Makes a case's images twice, without a builder and with BuildKit, and says how they differ."""

import io
import json
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis

import graft_cases
from builds import PushedImage
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

Files = dict[str, tuple[Any, ...]]
"""Path → all that is to be equal."""


class Outcome(NamedTuple):
    """How one edit went."""

    seed: int
    edit: int
    refused: str | None
    """The reason; None if an image was made."""
    wrong: str | None
    """How it differs from BuildKit's."""


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

    def outcomes(self, seed: int) -> Iterator[Outcome]:
        """What becomes of all edits of a case."""
        case, name = graft_cases.case(seed), f"case-{seed}-{uuid.uuid4().hex[:8]}"
        folder = self.folder / name
        folder.mkdir()
        (folder / "busybox").write_bytes(self.busybox.read_bytes())
        (folder / "busybox").chmod(0o755)
        dockerfile = case.dockerfile
        if case.parent is not None:
            parent = f"{self.registry}/{name}-base:1"
            self._docker("build", f"--tag={parent}", "--file=-", str(folder), text=case.parent)
            self._docker("push", parent)
            dockerfile = dockerfile.replace("BASE", parent)
        (folder / "Dockerfile").write_text(dockerfile)
        if case.ignore is not None:
            (folder / ".dockerignore").write_text(case.ignore)
        case.make(folder)
        old = self._state(folder, f"{name}:old")
        if isinstance(old, str) or not self._build(folder, f"{self.registry}/{name}:old"):
            return  # BuildKit cannot build it either
        old_image = PushedImage(ImageReference.parse(f"{self.registry}/{name}:old"))
        for number, edit in enumerate(case.edits):
            edit(folder)
            yield Outcome(seed, number, *self._outcome(folder, name, number, old, old_image))

    def built(self, folder: Path, name: str) -> "Before":
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

    def _outcome(
        self, folder: Path, name: str, number: int, old: Any, old_image: PushedImage
    ) -> tuple[str | None, str | None]:
        manifest, asked = self._ask(folder, f"{name}:{number}")
        if isinstance(asked, str):
            return asked, None
        if isinstance(old[1], str):
            return old[1], None
        if asked.key != old[1].key:
            return "an earlier instruction sees what has changed", None
        inputs = self._inputs(f"{name}:{number}")
        place = self._place()
        try:
            pinned = self._noted(name, *old)
            with SourceFiles(folder, manifest, Quiet()) as files:
                graft = Graft(place, inputs, asked, Quiet())
                made = graft.make(pinned, manifest, files.chunks, 1e9, lambda: None)
        except Refusal as refusal:
            return refusal.reason, None
        mine = PushedImage(ImageReference.parse(f"{self.registry}/{name}@{made}"))
        theirs = self._exported(folder)
        if theirs is None:
            return None, "BuildKit cannot build it"
        return None, _difference(flattened(mine), theirs) or _settings(mine, old_image)

    def _state(self, folder: Path, image: str) -> Any:
        return self._ask(folder, image)

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
        with tarfile.open(fileobj=io.BytesIO(image._layer(layer["digest"]))) as archive:
            found = _files(archive)
        for path in list(found):
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
    return files


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
            found[path] = ("file", *owner, content.read() if content else b"")
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
