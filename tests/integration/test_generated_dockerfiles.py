"""Generated Dockerfiles, built and run for real.

Nothing is fetched: the base image has the machine's own Python, a shell, uv and a folder with
wheels that the test makes, which stands for the index.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

import trees
from imagemill import context
from imagemill.dockerfile.generate import Wishes, generate
from imagemill.errors import UserError
from imagemill.ports import Quiet
from service import Service, service

BASE = "imagemill-test/python:base"
SETUP = """\
FROM scratch
COPY root /
ENV PATH=/usr/local/bin:/usr/bin:/bin UV_OFFLINE=1 UV_FIND_LINKS=/wheels UV_NO_INDEX=1 UV_PYTHON_DOWNLOADS=never
"""
BACKEND = '''\
"""A build backend that needs nothing: it writes an editable wheel."""
import zipfile

METADATA = "Metadata-Version: 2.1\\nName: shop\\nVersion: 1.0\\nRequires-Dist: greeting\\n"
WHEEL = "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"


def get_requires_for_build_editable(config_settings=None):
    return []


def build_editable(directory, config_settings=None, metadata_directory=None):
    name = "shop-1.0-py3-none-any.whl"
    info = "shop-1.0.dist-info"
    with zipfile.ZipFile(f"{directory}/{name}", "w") as wheel:
        wheel.writestr("shop.pth", "/app/src\\n")
        wheel.writestr(f"{info}/METADATA", METADATA)
        wheel.writestr(f"{info}/WHEEL", WHEEL)
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\\nshop = shop:main\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
'''
PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "shop"
version = "1.0"
requires-python = ">=3.8"
dependencies = ["greeting"]

[project.scripts]
shop = "shop:main"
"""
REPORT = """\
import getpass, greeting, json, os, sys
open("written", "w").close()
print(json.dumps([greeting.TEXT, os.getuid(), getpass.getuser(), os.path.expanduser("~"), os.getcwd(), sys.argv[1:]]))
"""
USER = ["hello", 10001, "app", "/home/app", "/app"]

Docker = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def docker(engine: str, docker_cli: str) -> Docker:
    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        environment = {
            **os.environ,
            "DOCKER_HOST": engine,
            "DOCKER_BUILDKIT": "1",
            "BUILDKIT_PROGRESS": "plain",
        }
        return subprocess.run(
            [docker_cli, *arguments], env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="module")
def base(docker: Docker, busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with what a base image has to have."""
    folder = tmp_path_factory.mktemp("base")
    root = folder / "root"
    for name in ("bin", "etc", "tmp", "root", "usr/local/bin", "wheels"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    shutil.copy(busybox, root / "bin/busybox")
    for name in ("sh", "mkdir", "chown", "cat", "env"):
        (root / "bin" / name).symlink_to("busybox")
    _add_python(root)
    _add_program(Path(find_uv_bin()), root, root / "usr/local/bin/uv")
    _add_wheel(root / "wheels")
    _add_backend(root / "wheels")
    (folder / "Dockerfile").write_text(SETUP)
    done = docker("build", "--tag", BASE, folder)
    assert done.returncode == 0, done.stderr
    yield BASE
    docker("image", "rm", "--force", BASE)


def _add_python(root: Path) -> None:
    """This interpreter, its standard library and the libraries that both are linked to."""
    python = Path(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]
    _add_program(python, root, root / python.relative_to("/"))
    library = Path(
        sysconfig.get_path(
            "stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix}
        )
    )
    without = shutil.ignore_patterns(
        "site-packages", "dist-packages", "test", "__pycache__", "idlelib", "config-*", "*.a"
    )
    shutil.copytree(library, root / library.relative_to("/"), ignore=without, dirs_exist_ok=True)
    for module in (library / "lib-dynload").glob("*.so"):
        _add_libraries(module, root)
    for name in ("python3", f"python3.{sys.version_info.minor}"):
        link = root / "usr/local/bin" / name
        if not link.exists():
            link.symlink_to(python)


def _add_program(program: Path, root: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(program, target)
    _add_libraries(program, root)


def _add_libraries(program: Path, root: Path) -> None:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for word in listed.split():
        target = root / word.removeprefix("/")
        if word.startswith("/") and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, target)


def _add_wheel(folder: Path) -> None:
    """The package `greeting`, which everything here depends on."""
    info = "greeting-1.0.dist-info"
    with zipfile.ZipFile(folder / "greeting-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("greeting.py", 'TEXT = "hello"\n')
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")


def _add_backend(folder: Path) -> None:
    """A build backend by the name of a known one, so that the index need not have that."""
    info = "flit_core-9.0.dist-info"
    with zipfile.ZipFile(folder / "flit_core-9.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("flit_core/buildapi.py", BACKEND)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: flit_core\nVersion: 9.0\n")
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")


def build(docker: Docker, source: Path, wishes: Wishes) -> "subprocess.CompletedProcess[str]":
    """Build as a builder would: from the context as it is packed, with the generated Dockerfile
    beside it.
    """
    folder = source.parent / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    (source / "Dockerfile").write_text(generate(source, wishes))
    context.copy(source, None, folder, Quiet())
    (source / "Dockerfile").unlink()
    return docker(
        "build",
        "--file",
        folder / context.DOCKERFILE,
        "--tag",
        "imagemill-test/built",
        folder / context.CONTEXT,
    )


def output(docker: Docker, source: Path, wishes: Wishes, *arguments: str) -> str:
    built = build(docker, source, wishes)
    assert built.returncode == 0, built.stderr
    done = docker("run", "--rm", "--network", "none", "imagemill-test/built", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("cache_mounts", [True, False])
def test_a_script_with_requirements_runs_without_rights(
    docker: Docker, base: str, tmp_path: Path, cache_mounts: bool
) -> None:
    source = trees.make(
        tmp_path / "source", {"requirements.txt": "greeting\r\n", "my train.py": REPORT}
    )
    found = output(
        docker, source, Wishes(base=base, uv="base", cache_mounts=cache_mounts), "--lr", "a b"
    )
    assert json.loads(found) == [*USER, ["--lr", "a b"]]


def test_a_package_is_installed_and_its_console_script_runs(
    docker: Docker, base: str, tmp_path: Path
) -> None:
    files = {
        "pyproject.toml": PYPROJECT,
        "backend.py": BACKEND,
        "src/shop.py": f"def main():\n{_indented(REPORT)}",
    }
    source = trees.make(tmp_path / "source", files)
    assert json.loads(output(docker, source, Wishes(base=base, uv="base"))) == [*USER, []]


def test_a_project_with_a_lock_of_uv_is_synchronised(
    docker: Docker, base: str, tmp_path: Path
) -> None:
    files = {
        "pyproject.toml": PYPROJECT,
        "backend.py": BACKEND,
        "src/shop.py": f"def main():\n{_indented(REPORT)}",
    }
    source = trees.make(tmp_path / "source", files)
    # Locked in the image, since the lock has the path of the wheels in it.
    lock = "set -e; mkdir -p /wheels; exec uv lock --python python3"
    made = docker(
        "run",
        "--rm",
        "--volume",
        f"{source}:/source",
        "--workdir",
        "/source",
        base,
        "/bin/sh",
        "-c",
        lock,
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(output(docker, source, Wishes(base=base, uv="base"))) == [*USER, []]


def test_a_script_alone_gets_what_its_metadata_names(
    docker: Docker, base: str, tmp_path: Path
) -> None:
    block = '# /// script\n# requires-python = ">=3.8"\n# dependencies = ["greeting"]\n# ///\n'
    source = trees.make(tmp_path / "source", {"train.py": block + REPORT})
    assert json.loads(output(docker, source, Wishes(base=base, uv="base"))) == [*USER, []]


def test_uv_may_come_from_another_image(docker: Docker, base: str, tmp_path: Path) -> None:
    folder = trees.make(
        tmp_path / "uv",
        {"Dockerfile": f"FROM {base} AS b\nFROM scratch\nCOPY --from=b /usr/local/bin/uv /uv\n"},
    )
    assert docker("build", "--tag", "imagemill-test/uv:1", folder).returncode == 0
    source = trees.make(tmp_path / "source", {"requirements.txt": "greeting\n", "train.py": REPORT})
    assert json.loads(output(docker, source, Wishes(base=base, uv="imagemill-test/uv:1"))) == [
        *USER,
        [],
    ]


def test_dependencies_are_installed_anew_only_when_they_change(
    docker: Docker, base: str, tmp_path: Path
) -> None:
    source = trees.make(tmp_path / "source", {"requirements.txt": "greeting\n", "train.py": REPORT})
    wishes = Wishes(base=base, uv="base")
    assert build(docker, source, wishes).returncode == 0
    (source / "train.py").write_text(f"{REPORT}# changed\n")
    log = build(docker, source, wishes).stderr
    (step,) = [
        line.split()[0]
        for line in log.splitlines()
        if "RUN --mount" in line and "uv pip install" in line
    ]
    assert f"{step} CACHED" in log
    assert any(line.endswith("COPY --chown=10001:10001 . .") for line in log.splitlines())


def test_files_and_folders_that_requirements_name_are_there_before_the_code(
    docker: Docker, base: str, tmp_path: Path
) -> None:
    names = [
        "[c].txt",
        "$HOME.txt",
        "d*.txt",
        "ü.txt",
        "it's.txt",
        'h"i.txt',
        "a b.txt",
        "$parts/e?.txt",
    ]
    files = {
        "requirements.txt": "".join(f"-r {name}\n" for name in names) + "./libs/shop\n",
        "train.py": REPORT + "import shop\n",
        "libs/shop/pyproject.toml": PYPROJECT,
        "libs/shop/backend.py": BACKEND.replace("editable", "wheel").replace(
            "/app/src", "/app/libs/shop"
        ),
        "libs/shop/shop.py": "def main(): ...\n",
        **dict.fromkeys(names, "greeting\n"),
    }
    source = trees.make(tmp_path / "source", files)
    assert json.loads(output(docker, source, Wishes(base=base, uv="base"))) == [*USER, []]


def test_without_a_dockerignore_what_is_not_the_projects_own_stays_out(tmp_path: Path) -> None:
    files = {"a.py": "", ".git/HEAD": "", "x/__pycache__/a.pyc": "", ".env": ""}
    source = trees.make(tmp_path, files)
    manifest = context.manifest(source, Wishes(), Quiet())
    assert manifest.dockerfile.generated
    assert {entry.path for entry in manifest.entries} == {b"a.py", b"x"}
    (source / ".dockerignore").write_text("x\n")
    assert b".env" in {entry.path for entry in context.manifest(source, Wishes(), Quiet()).entries}


@pytest.fixture
def chain(
    tmp_path: Path,
    redis_url: str,
    key_prefix: str,
    registry: str,
    engine: str,
    docker_cli: str,
    base: str,
) -> Iterator[Service]:
    """A service whose worker takes uv from the base image."""
    config = tmp_path / "launch-config.yaml"
    config.write_text(
        "environment: {type: local}\nbuilder: {type: docker, uv-image: base, base-digests: false}\n"
    )
    settings = {
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": docker_cli,
        "IMAGEMILL_CONFIG": str(config),
    }
    with service(redis_url, redis_url, key_prefix, tmp_path, **settings) as workers:
        workers.start()
        yield workers


def test_a_project_without_a_dockerfile_goes_through_the_chain(
    chain: Service, docker: Docker, base: str, registry: str, tmp_path: Path
) -> None:
    files = {
        "requirements.txt": "greeting\n",
        "train.py": REPORT,
        "other.py": "",
        ".env": "not for the image",
    }
    source = trees.make(tmp_path / "source", files)
    fields: dict[str, Any] = {
        "source": str(source),
        "destination": f"{registry}/generated/project",
        "base_image": base,
        "entrypoint": ["python3", "train.py"],
    }
    build = chain.client.submit(**fields)
    report = chain.client.wait(build, timeout=120).raise_for_status()
    again = chain.client.wait(chain.client.submit(**fields), timeout=120).raise_for_status()
    other = chain.client.submit(**{**fields, "entrypoint": ["python3", "other.py"]})

    assert report.built
    assert not again.built
    assert chain.client.wait(other, timeout=120).source_hash != report.source_hash
    assert any(
        "has no Dockerfile: it is built by a generated one" in line
        for line in chain.client.logs(build)
    )
    done = docker("run", "--rm", "--network", "none", report.image or "", "--lr", "1")
    assert json.loads(done.stdout) == [*USER, ["--lr", "1"]]
    there = docker(
        "run",
        "--rm",
        "--network",
        "none",
        "--entrypoint",
        "/bin/sh",
        report.image or "",
        "-c",
        "cat .env",
    )
    assert there.returncode != 0


def test_what_is_asked_of_a_generated_dockerfile_is_refused_where_there_is_one(
    tmp_path: Path,
) -> None:
    source = trees.make(tmp_path, {"Dockerfile": "FROM scratch\n", "train.py": ""})
    with pytest.raises(
        UserError, match="knows nothing of the Python version and the entrypoint"
    ) as raised:
        context.manifest(source, Wishes(python="3.12", entrypoint=("python", "train.py")), Quiet())
    assert "leave them out" in raised.value.hint
    assert not context.manifest(source, Wishes(), Quiet()).dockerfile.generated


def test_a_dockerfile_of_another_name_is_asked_about_before_one_is_generated(
    tmp_path: Path,
) -> None:
    source = trees.make(tmp_path, {"Dockerfile.gpu": "FROM scratch\n", "train.py": ""})
    with pytest.raises(UserError, match=r"it has Dockerfile\.gpu"):
        context.manifest(source, Wishes(), Quiet())


def _indented(code: str) -> str:
    return "".join(f"    {line}\n" for line in code.splitlines())


PACKAGE = """\
[build-system]
requires = ["flit_core"]
build-backend = "flit_core.buildapi"

[project]
name = "shop"
version = "1.0"
dependencies = ["greeting"]

[project.scripts]
shop = "shop:main"
"""
CODE = 'import greeting\n\ndef main():\n    print(greeting.TEXT, "{}")\n'
SHAPES: dict[str, tuple[dict[str, str], str]] = {
    "script": ({}, "main.py"),
    "requirements": ({"requirements.txt": "greeting\n"}, "main.py"),
    "package": ({"pyproject.toml": PACKAGE}, "src/shop/__init__.py"),
    "in-place": ({"requirements.txt": "-e .\n", "pyproject.toml": PACKAGE}, "src/shop/__init__.py"),
}
"""Files of a project, and the one that is its code."""


@pytest.mark.parametrize("shape", SHAPES)
def test_a_change_of_code_needs_no_builder(
    chain: Service, docker: Docker, base: str, registry: str, tmp_path: Path, shape: str
) -> None:
    pushed = f"{registry}/generated/base:{shape}"
    assert docker("tag", base, pushed).returncode == 0
    assert docker("push", pushed).returncode == 0
    files, code = SHAPES[shape]
    text = CODE if files else 'print("{}")\n'
    text += "" if shape != "requirements" else "main()\n"
    source = trees.make(tmp_path / "source", {**files, code: text.format("first")})
    request: dict[str, Any] = {"source": str(source), "base_image": pushed}
    request["destination"] = f"{registry}/generated/{shape}"

    for number in range(50):
        trees.make(source, {code: text.format(f"change {number}"), "more/new.py": str(number)})
        submitted = chain.client.submit(**request)
        report = chain.client.wait(submitted, timeout=120).raise_for_status()
        if report.grafted:
            break
        assert "no image is known" in (report.not_grafted or "")  # nor has it been read yet
    assert report.grafted
    done = docker("run", "--rm", "--network", "none", report.image or "")
    assert done.stdout.endswith(f"change {number}\n"), done.stderr
