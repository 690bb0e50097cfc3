"""What projects declare in other files than the usual ones gets into the image, or is told."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

import trees
from imagemill.dockerfile.generate import Wishes, generate
from imagemill.errors import UserError

ENTRY = {"main.py": ""}
CONDA = "dependencies: [python=3.11, numpy]\n"
LOCK = {
    "_meta": {
        "requires": {"python_version": "3.11"},
        "sources": [{"url": "https://pypi.org/simple"}],
    },
    "default": {
        "requests": {
            "version": "==2.32.0",
            "extras": ["socks"],
            "markers": "python_version >= '3.8'",
        }
    },
    "develop": {"pytest": {"version": "==8"}},
}
PYLOCK = 'lock-version = "1.0"\nrequires-python = ">=3.11"\n[[packages]]\nname = "six"\n'

USED = {
    "MLflow, conda": (
        {"MLproject": "conda_env: envs/conda.yaml\n", "envs/conda.yaml": CONDA},
        "--file envs/conda.yaml",
    ),
    "MLflow, pip": (
        {
            "MLproject": "python_env: python_env.yaml\n",
            "python_env.yaml": "python: '3.11'\ndependencies: [numpy==2, -r more.txt]\n",
            "more.txt": "six\n",
        },
        "uv pip install numpy==2 --requirement more.txt",
    ),
    "what MLflow runs": (
        {
            "MLproject": "conda_env: conda.yaml\nentry_points:\n  main:\n    parameters:\n"
            "      lr: {type: float, default: 0.1}\n    command: python main.py --lr {lr}\n",
            "conda.yaml": CONDA,
        },
        '"python", "main.py", "--lr", "0.1"]',
    ),
    "MLflow, an index and the project itself": (
        {
            "MLproject": "python_env: python_env.yaml\n",
            "python_env.yaml": "dependencies: [--extra-index-url https://a.example/s, -e ., --pre]\n",
            "setup.py": "",
        },
        "https://a.example/s -e . --prerelease allow\n",
    ),
    "MLflow, options as words": (
        {"python_env.yaml": "dependencies: [--extra-index-url https://a.example/s, --pre, six]\n"},
        "uv pip install --extra-index-url https://a.example/s six --prerelease allow",
    ),
    "MLflow's other default": (
        {
            "MLproject": "entry_points: {main: {command: python a.py, parameters: [a]}}\n",
            "conda.yaml": CONDA,
        },
        '"python", "a.py"]',
    ),
    "a lock with a name": ({"pylock.prod.toml": PYLOCK}, "--requirement pylock.prod.toml"),
    "a lock of any installer": ({"pylock.toml": PYLOCK}, "--requirement pylock.toml"),
    "Pipenv's lock": (
        {"Pipfile": "", "Pipfile.lock": json.dumps(LOCK)},
        "uv pip install 'requests[socks]==2.32.0 ; python_version",
    ),
    "conda's other name": ({"conda.yml": CONDA}, "--file conda.yml"),
    "the only environment": ({"environment-gpu.yml": CONDA}, "--file environment-gpu.yml"),
    "the only requirements": (
        {"requirements/base.txt": "six\n"},
        "--requirement requirements/base.txt",
    ),
    "other names for requirements": ({"reqs.txt": "six\n"}, "--requirement reqs.txt"),
    "Rye's lock": ({"requirements.lock": "six\n"}, "--requirement requirements.lock"),
    "capitals": ({"Requirements.txt": "six\n"}, "--requirement Requirements.txt"),
    "short names for environments": ({"env.yml": CONDA}, "--file env.yml"),
    "a folder as its name alone": (
        {"requirements.txt": "-e sub\n", "sub/setup.py": ""},
        "COPY sub/ ./sub/",
    ),
    "a folder by uv's variable": (
        {"requirements.txt": "-e file:///${PROJECT_ROOT}/sub\n", "sub/setup.py": ""},
        "COPY sub/ ./sub/",
    ),
    "links of a file": (
        {"requirements.txt": "--find-links=file:./wheels\nsix\n", "wheels/a.whl": ""},
        "COPY wheels/ ./wheels/",
    ),
    "those of production": (
        {"requirements/base.txt": "six\n", "requirements/prod.txt": "-r base.txt\n"},
        "--requirement requirements/prod.txt",
    ),
    "not those of who works on it": (
        {"requirements-dev.txt": "pytest\n", "requirements-serve.txt": "six\n"},
        "--requirement requirements-serve.txt",
    ),
    "Binder's": ({"binder/requirements.txt": "six\n"}, "--requirement binder/requirements.txt"),
    "Binder's system packages": (
        {"apt.txt": "libgl1  # for OpenCV\nffmpeg\n"},
        "apt-get install --yes --no-install-recommends libgl1 ffmpeg",
    ),
    "Binder's last word": ({"binder/postBuild": "#!/bin/sh\n"}, "&& ./binder/postBuild"),
    "pre-releases": ({"requirements.txt": "--pre\nsix\n"}, "requirements.txt --prerelease allow"),
    "a host without a certificate": (
        {"requirements.txt": "--trusted-host a.example\nsix\n"},
        "--allow-insecure-host a.example",
    ),
    "the folder as an editable file": (
        {
            "requirements.txt": "-e file:.#egg=a\n",
            "setup.py": "from setuptools import setup\nsetup()\n",
        },
        "COPY --chown=10001:10001 . .\n",
    ),
    "a Procfile": (
        {"Procfile": "release: x\nweb: gunicorn main:app\n"},
        '["gunicorn", "main:app"]',
    ),
    "a Procfile with a comment": (
        {"Procfile": "web: gunicorn main:app # the site\n"},
        '["/bin/sh", "-c", "exec gunicorn main:app # the site"]',
    ),
    "a Procfile for a shell": (
        {"Procfile": "web: gunicorn -b :$PORT main:app\n"},
        '["/bin/sh", "-c", "exec gunicorn -b :$PORT main:app"]',
    ),
}


def made(folder: Path, files: Mapping[str, str], wishes: Wishes | None = None) -> str:
    return generate(trees.make(folder, {**ENTRY, **files}), wishes or Wishes())


@pytest.mark.parametrize("name", USED)
def test_it_is_used(name: str, tmp_path: Path) -> None:
    files, expected = USED[name]
    assert expected in made(tmp_path, files)


REFUSED = {
    "Pipfile": ({"Pipfile": ""}, "Pipfile is not used: `pipenv lock` makes"),
    "pixi": ({"pixi.toml": ""}, "pixi.toml is not used: `pixi workspace export"),
    "R": ({"install.R": ""}, "install.R is not used: write a Dockerfile"),
    "several": (
        {"requirements-a.txt": "", "requirements-b.txt": ""},
        "not clear which of requirements-a.txt, requirements-b.txt",
    ),
    "a package from elsewhere": (
        {"Pipfile.lock": json.dumps({"default": {"a": {"git": "https://host/a"}}})},
        "a is from elsewhere than an index",
    ),
    "requirements below": (
        {"app/requirements.txt": "six\n"},
        "app/requirements.txt is not used: only what lies at the top is",
    ),
    "pixi in pyproject.toml": (
        {"pyproject.toml": "[tool.pixi.dependencies]\nnumpy = '*'\n"},
        "[tool.pixi.dependencies] in pyproject.toml is not used",
    ),
    "Flit's old table": (
        {"pyproject.toml": "[tool.flit.metadata]\nrequires = ['six']\n"},
        "[tool.flit.metadata.requires] in pyproject.toml is not used",
    ),
    "a group": (
        {"pyproject.toml": "[dependency-groups]\nmain = ['six']\n"},
        "[dependency-groups] in pyproject.toml is not used",
    ),
    "MLflow's image": (
        {"MLproject": "name: a\ndocker_env: {image: b}\n"},
        "MLproject:2: docker_env is not used",
    ),
    "Cog": ({"cog.yaml": ""}, "cog.yaml is not used: list in requirements.txt"),
    "a lock without its sources": (
        {"Pipfile.lock": json.dumps({"default": {}, "_meta": {"sources": [{}]}})},
        "Pipfile.lock: this is no lock of Pipenv",
    ),
    "no list of where": (
        {
            "pyproject.toml": "[project]\nname = 'a'\nversion = '1'\n[build-system]\nrequires = []\n"
            "[tool.setuptools.packages.find]\nwhere = 5\n"
        },
        "pyproject.toml: where is not a list of texts",
    ),
    "no lock": ({"Pipfile.lock": "[]"}, "Pipfile.lock: this is no lock of Pipenv"),
    "no system package": ({"apt.txt": "a;b\n"}, "apt.txt:1: 'a;b' is not the name of"),
    "an option behind": (
        {"requirements.txt": "six --no-binary=six\n"},
        "requirements.txt:1: uv, which installs, does not know --no-binary behind",
    ),
    "an option": (
        {"requirements.txt": "--global-option=build\nsix\n"},
        "requirements.txt:1: uv, which installs, does not know the option --global-option",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_name(name: str, tmp_path: Path) -> None:
    files, expected = REFUSED[name]
    with pytest.raises(UserError) as raised:
        made(tmp_path, files)
    assert expected in raised.value.message


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"uv.lock": "", "pyproject.toml": "[project]\nname='a'\n", "environment.yml": CONDA},
         "environment.yml is not used: pyproject.toml, uv.lock is what is installed"),
        ({"requirements.txt": "six\n", "requirements/serve.txt": "flask\n"},
         "requirements/serve.txt is not used: requirements.txt is what is installed"),
        ({"requirements.txt": "six\n", "pixi.toml": ""}, "pixi.toml is not used"),
        ({"requirements.txt": "six\n", "package.json": "{}"}, "package.json is not used"),
        ({"requirements.txt": "--prefer-binary\nsix\n"},
         "requirements.txt:1: --prefer-binary is not used: uv takes the newest version"),
        ({"requirements-dev.txt": "pytest\n"},
         "requirements-dev.txt is not used: by its name it is for those who work on the project"),
    ],
)  # fmt: skip
def test_what_is_not_used_is_told(files: dict[str, str], told: str, tmp_path: Path) -> None:
    generated = Wishes().generated(trees.make(tmp_path, {**ENTRY, **files}))
    assert told in " ".join(generated.warnings)
    assert told in generated.dockerfile.decode()


@pytest.mark.parametrize(
    "files",
    [
        {
            "requirements.txt": "six\n",
            "requirements.in": "six\n",
            "requirements-dev.txt": "pytest\n",
        },
        {"requirements.txt": "-r requirements/base.txt\n", "requirements/base.txt": "six\n"},
        {"Pipfile": "", "Pipfile.lock": json.dumps(LOCK)},
        {"environment.yml": CONDA, "conda-lock.yml": ""},
        {"env.yaml": "PORT: 8080\n", "requirements.yml": "roles: []\n"},
        {"tests/requirements.txt": "pytest\n", "examples/a/requirements.txt": "six\n"},
    ],
)
def test_what_is_used_by_another_name_is_not_told(files: dict[str, str], tmp_path: Path) -> None:
    assert Wishes().generated(trees.make(tmp_path, {**ENTRY, **files})).warnings == ()


def test_notebooks_alone_are_named_with_what_to_do(tmp_path: Path) -> None:
    source = trees.make(tmp_path, {"requirements.txt": "six\n", "train.ipynb": "{}"})
    with pytest.raises(UserError, match=r"nothing to run but notebooks: train\.ipynb") as raised:
        generate(source, Wishes())
    assert "jupyter nbconvert" in raised.value.hint


@pytest.mark.parametrize(
    "files",
    [
        {"a.py": "print 'Python 2'\n", "b.py": "if __name__ == '__main__':\n    pass\n"},
        {"a.py": "# coding: undefined\n", "b.py": "if __name__ == '__main__':\n    pass\n"},
        {"a.py": "", "b.py": "# coding: latin-1\n# \xe9\nif __name__ == '__main__':\n    pass\n"},
    ],
)
def test_file_that_is_no_entry_refuses_nothing(files: dict[str, str], tmp_path: Path) -> None:
    for name, code in files.items():
        (tmp_path / name).write_bytes(code.encode("latin-1"))
    assert '["python", "b.py"]' in generate(tmp_path, Wishes())


def test_companys_index_is_asked_where_the_project_names_none(tmp_path: Path) -> None:
    wishes = Wishes(index="https://index.example.com/simple")
    found = made(tmp_path / "a", {"requirements.txt": "six\n"}, wishes)
    assert "UV_DEFAULT_INDEX=https://index.example.com/simple" in found
    assert "id=netrc" in found
    conda = made(tmp_path / "b", {"environment.yml": CONDA}, wishes)
    assert "PIP_INDEX_URL=https://index.example.com/simple" in conda
    own = made(tmp_path / "c", {"requirements.txt": "-i https://own.example/simple\nsix\n"}, wishes)
    assert "UV_DEFAULT_INDEX" not in own


def test_lock_that_says_where_packages_come_from_is_told(tmp_path: Path) -> None:
    files = {"uv.lock": "", "pyproject.toml": "[project]\nname='a'\n"}
    wishes = Wishes(index="https://index.example.com/simple")
    generated = wishes.generated(trees.make(tmp_path, {**ENTRY, **files}))
    assert "builder.package-index is not asked: uv.lock says" in generated.warnings[0]


def test_system_packages_may_be_asked_for(tmp_path: Path) -> None:
    found = made(tmp_path, {}, Wishes(system_packages=("libgl1", "ffmpeg=7:5.1")))
    assert "libgl1 ffmpeg=7:5.1" in found
    with pytest.raises(UserError, match="the request: '--x' is not the name"):
        made(tmp_path, {}, Wishes(system_packages=("--x",)))
