"""What people do all day: change a line, want an image. Against `docker build` and `docker push` by
hand, on the same engine, both warm; and the source hash of a tree that has not changed, against
`git status`.

Each side has a project of its own and edits it before its turn: what one side has just built would
be in the engine's cache for the other.
"""

import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import servers
from benchmarks.context import generate
from benchmarks.figures import Figure, ratio, rounds, sized, turn
from benchmarks.service import ROOT, Service, service, subfolder

WEIGHTS_BYTES = sized(1_000_000_000, 1_000_000)
FILES, BYTES = sized(37_000, 300), sized(993_000_000, 1_000_000)
WARM_UPS = sized(2, 0)

MIB = 1 << 20

BESIDE = "FROM scratch\nCOPY weights /weights\nCOPY serve.py /serve.py\n"
AFTER = "FROM scratch\nCOPY tree /tree\nCOPY serve.py /serve.py\n"
WITHIN = "FROM scratch\nCOPY . /\n"


@dataclass(frozen=True)
class Sides:
    """The ways to an image, each for a folder and a repository."""

    folder: Path
    running: Service

    def by_hand(self, project: Path, repository: str) -> None:
        """`docker build` and `docker push`, as one types them."""
        cli = servers.docker_cli()
        environment = {**os.environ, "DOCKER_HOST": self.running.engine, "DOCKER_BUILDKIT": "1"}
        image = f"{repository}:1"
        for arguments in (["build", "--tag", image, str(project)], ["push", image]):
            _run([cli, *arguments], environment)

    def with_service(self, project: Path, repository: str) -> None:
        """`imagemill build` at a terminal, with a service."""
        self._imagemill(project, repository, {"IMAGEMILL_BROKER": self.running.broker})

    def embedded(self, project: Path, repository: str) -> None:
        """`imagemill build` at a terminal, without one."""
        self._imagemill(
            project,
            repository,
            {
                "DOCKER_HOST": self.running.engine,
                "IMAGEMILL_DOCKER_CLI": servers.docker_cli(),
                "XDG_CACHE_HOME": str(subfolder(self.folder, "cache")),
            },
        )

    def _imagemill(self, project: Path, repository: str, variables: Mapping[str, str]) -> None:
        command = [_program("imagemill"), "build", str(project), "--destination", repository]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **variables}
        _run(command, environment)


Deliver = Callable[[Path, str], None]


def measure() -> Iterator[tuple[str, Figure]]:
    """The figures, each as it is measured."""
    with tempfile.TemporaryDirectory() as name, service(Path(name)) as running:
        folder = Path(name)
        sides = Sides(folder, running)
        yield "edit_vs_cli", edited(sides, sides.with_service, BESIDE, "serve.py")
        yield "edit_embedded_vs_cli", edited(sides, sides.embedded, BESIDE, "serve.py")
        yield "edit_many_vs_cli", edited(sides, sides.with_service, AFTER, "serve.py")
        yield "same_embedded_vs_cli", edited(sides, sides.embedded, AFTER, None)
        yield "edit_within_vs_cli", edited(sides, sides.with_service, WITHIN, "edited")
        yield "hash_unchanged_vs_git", hash_unchanged(subfolder(folder, "hashed"))


def edited(sides: Sides, ours: Deliver, dockerfile: str, changed: str | None) -> Figure:
    """Our time for an image after one file was changed (None: after nothing was) ÷ that of docker
    by hand.
    """
    pair = []
    for deliver in (ours, sides.by_hand):
        project = _project(sides.folder / uuid.uuid4().hex, dockerfile)
        repository = f"{sides.running.registry}/edit/{project.name}"
        pair.append((deliver, project, repository))
        for _ in range(WARM_UPS):
            _change(project, changed)
            deliver(project, repository)
    turns = []
    for _ in range(rounds()):
        taken = []
        for deliver, project, repository in pair:
            _change(project, changed)
            taken.append(turn(lambda: deliver(project, repository)))  # noqa: B023 (called at once)
        turns.append((taken[0], taken[1]))
    return ratio(turns)


def hash_unchanged(folder: Path) -> Figure:
    """`imagemill hash` of a tree in which nothing has changed ÷ `git status` there."""
    project = _project(folder / "project", WITHIN)
    git = ["git", "-C", str(project), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "1"]):
        subprocess.run([*git, *arguments], check=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }

    def ours() -> None:
        _run([_program("imagemill"), "hash", str(project)], environment)

    def its() -> None:
        _run([*git, "status"], environment)

    for _ in range(2):
        ours()
        its()
    return ratio([(turn(ours), turn(its)) for _ in range(rounds())])


def _project(project: Path, dockerfile: str) -> Path:
    """What the Dockerfile copies, and a file to change."""
    if "tree" in dockerfile or "COPY . " in dockerfile:
        tree = project if "COPY . " in dockerfile else project / "tree"
        project.parent.mkdir(exist_ok=True)
        if tree != project:
            project.mkdir()
        generate(tree, FILES, BYTES)
    else:
        project.mkdir()
        with (project / "weights").open("wb") as file:
            for begin in range(0, WEIGHTS_BYTES, MIB):
                file.write(os.urandom(min(MIB, WEIGHTS_BYTES - begin)))
    (project / "Dockerfile").write_text(dockerfile)
    (project / "serve.py").write_text("print('hello')\n")
    return project


def _change(project: Path, name: str | None) -> None:
    if name:
        (project / name).write_text(f"print({uuid.uuid4().hex!r})\n")


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    for key, figure in measure():
        print(key, figure, flush=True)
