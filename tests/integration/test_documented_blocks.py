"""The blocks of the README and of docs/ do what they say, as they stand: in a fresh clone, in bash.

The word behind a block's language says what it needs: `service` a broker and a worker, `checkout`,
`cloud`, `cluster` and `compose` what a test has not; of those the syntax is checked, and what `make`
would do.
"""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from imagemill.config import LaunchConfig
from service import Service, service

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "configs/README.md"]
ELSEWHERE = {"checkout", "cloud", "cluster", "compose"}
SHOWN = {"text", "console", "dockerfile"}
BLOCK = re.compile(r"^ *```(\w+) ?(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    needs: str
    text: str

    @property
    def script(self) -> str:
        """What bash runs."""
        return self.text if self.language == "sh" else f"python - <<'END'\n{self.text}END\n"


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(page.read_text())]


def runs(page: Path) -> list[Block]:
    wanted = {"sh", "python"}
    return [
        each for each in blocks(page) if each.language in wanted and each.needs not in ELSEWHERE
    ]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone, with what has not been committed yet."""
    folder = tmp_path_factory.mktemp("clone") / "imagemill"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", folder], check=True)
    changed = subprocess.check_output(["git", "diff", "--binary", "HEAD"], cwd=ROOT)
    if changed:
        subprocess.run(["git", "apply", "--index"], input=changed, cwd=folder, check=True)
        who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        subprocess.run(["git", *who, "commit", "--quiet", "-m", "x"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def running(
    redis_url: str,
    engine: str,
    docker_cli: str,
    tmp_path_factory: pytest.TempPathFactory,
    clone: Path,
) -> Iterator[Service]:
    settings = {
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": docker_cli,
        "IMAGEMILL_SOURCE_ROOTS": str(clone),
    }
    # The blocks know no prefix: no other test may use this database.
    url, folder = f"{redis_url.rpartition('/')[0]}/7", tmp_path_factory.mktemp("service")
    with service(url, url, "", folder, **settings) as running:
        running.start()
        yield running


RUN = [
    pytest.param(block, id=f"{name(page)}-{number}")
    for page in PAGES
    for number, block in enumerate(runs(page), start=1)
]


@pytest.mark.parametrize("block", RUN)
def test_block_runs_as_it_stands(
    block: Block,
    clone: Path,
    running: Service,
    registry: str,
    engine: str,
    docker_cli: str,
    tmp_path: Path,
) -> None:
    path = [Path(sys.executable).parent, Path(docker_cli).parent, os.environ["PATH"]]
    broker = {"IMAGEMILL_BROKER": running.broker} if block.needs == "service" else {}
    environment = {
        "PATH": os.pathsep.join(map(str, path)),
        "HOME": str(tmp_path),
        "DOCKER_HOST": engine,
        "REGISTRY": f"{registry}/{uuid.uuid4().hex}",
        **broker,
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.script],
        cwd=clone,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr[-2000:]}\n{block.text}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_other_blocks_are_what_they_are_called(page: Path) -> None:
    assert not re.search(r"\n\n    \S", page.read_text()), "a block has its fence, and its language"
    for block in blocks(page):
        if block.language == "yaml":
            LaunchConfig.model_validate(yaml.load(block.text, yaml.BaseLoader))
        elif block.needs in ELSEWHERE:
            subprocess.run(["bash", "-n", "-c", block.text], check=True)
            for target in re.findall(r"^make (\w[\w-]*)", block.text, re.MULTILINE):
                command = ["make", "--dry-run", target]
                subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        else:
            assert block.language in {"sh", "python"} | SHOWN
