"""What a package can be installed by before its code is there."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imagemill.dockerfile.generate.project import Project
from imagemill.dockerfile.generate.setup_files import NeedsCode
from imagemill.dockerfile.generate.skeleton import Skeleton, find, workspace
from trees import make

BUILD = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
PROJECT = '[project]\nname = "shop"\nversion = "1"\n'


def test_modules_that_a_backend_looks_for_are_there_and_empty(tmp_path: Path) -> None:
    text = f'{BUILD}{PROJECT}readme = "README.md"\nlicense = {{file = "LICENSE"}}\n'
    files = {"README.md": "", "LICENSE": "", "shop/__init__.py": "1", "shop/deep/a.py": "2"}
    make(tmp_path, {"pyproject.toml": text, **files, "serve.py": "3"})
    assert find(Project(tmp_path)) == Skeleton(
        ("README.md", "LICENSE"), ("shop",), ("serve.py", "shop/__init__.py")
    )


def test_in_src_only_what_is_there_counts(tmp_path: Path) -> None:
    files = {"src/shop/__init__.py": "", "src/one.py": "", "other/__init__.py": "", "x.py": ""}
    make(tmp_path, {"pyproject.toml": BUILD + PROJECT, **files})
    found = Skeleton((), ("src/shop",), ("src/one.py", "src/shop/__init__.py"))
    assert find(Project(tmp_path)) == found


def test_the_file_that_has_the_version_is_there_whole(tmp_path: Path) -> None:
    dynamic = '[project]\nname = "shop"\ndynamic = ["version"]\n'
    version = '[tool.hatch.version]\npath = "shop/__about__.py"\n'
    make(tmp_path, {"pyproject.toml": BUILD + dynamic + version, "shop/__about__.py": "1"})
    found = find(Project(tmp_path))
    assert found.copied == ("shop/__about__.py",)


CFG = "[metadata]\nname = shop\nversion = attr: shop.__version__\n[options]\npackages = find:\n"
LITERAL = {"shop/__init__.py": '__version__ = "1.0"\n'}
SETUP = """\
import os
from setuptools import find_packages, setup

def read(*names):
    return open(os.path.join(os.path.dirname(__file__), *names)).read()

about = {}
exec(read("src", "shop", "about.py"), about)
setup(
    name="shop", version=about["VERSION"], long_description=read("README.rst"),
    package_dir={"": "src"}, packages=find_packages("src"),
)
"""
SETUPTOOLS = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
DYNAMIC = f"""{SETUPTOOLS}[project]
name = "shop"
dynamic = ["version", "readme", "dependencies"]
[tool.setuptools]
package-dir = {{"" = "lib"}}
[tool.setuptools.dynamic]
version = {{attr = "shop.__version__"}}
readme = {{file = ["README.rst"]}}
dependencies = {{file = "requirements.txt"}}
"""
HATCH = f'{BUILD}{PROJECT}[tool.hatch.build.targets.wheel]\npackages = ["lib/shop"]\n'
HOOKS = """\
[build-system]
requires = ["hatchling", "hatch-requirements-txt", "hatch-fancy-pypi-readme"]
build-backend = "hatchling.build"
[project]
name = "shop"
version = "1"
dynamic = ["dependencies", "optional-dependencies", "readme"]
[tool.hatch.metadata.hooks.requirements_txt.optional-dependencies]
more = ["more.txt"]
[tool.hatch.metadata.hooks.fancy-pypi-readme]
content-type = "text/markdown"
fragments = [{path = "README.md", start-after = "<!-- more -->"}, {text = "."}]
"""
PACKAGES: dict[str, dict[str, str]] = {
    "setup.py": {
        "setup.py": SETUP,
        "README.rst": "Shop\n",
        "src/shop/about.py": 'VERSION = "1.5"\n',
        "src/shop/__init__.py": "import missing\n",
        "src/shop/deep/__init__.py": "",
    },
    "setup.cfg": {
        "setup.cfg": CFG,
        "setup.py": "import setuptools\nsetuptools.setup()\n",
        **LITERAL,
    },
    "dynamic": {
        "pyproject.toml": DYNAMIC,
        "README.rst": "",
        "requirements.txt": "greeting\n",
        "lib/shop/__init__.py": LITERAL["shop/__init__.py"],
        "lib/shop/more.py": "import missing\n",
    },
    "packages": {
        "setup.py": 'from setuptools import setup\nsetup(name="shop", packages=["shop", "shop.deep"])\n',
        "shop/__init__.py": "",
        "shop/deep/__init__.py": "",
    },
    "hatch": {"pyproject.toml": HATCH, "lib/shop/__init__.py": "import missing\n"},
    "hatch, hooks": {
        "pyproject.toml": HOOKS,
        "requirements.txt": "greeting\n",
        "more.txt": "polite>=1\n",
        "README.md": "Shop, or <!-- more --> so\n",
        "shop/__init__.py": "import missing\n",
    },
    "hatch, version": {
        "pyproject.toml": f'{BUILD}[project]\nname = "shop"\ndynamic = ["version"]\n'
        '[tool.hatch.version]\npath = "shop/__init__.py"\n',
        **LITERAL,
    },
}
WHEEL = """\
import importlib, sys, zipfile
backend, out = sys.argv[1:]  # which setuptools replaces
name = importlib.import_module(backend).build_editable(out)
with zipfile.ZipFile(f"{out}/{name}") as wheel:
    print("contents:")
    for each in sorted(wheel.namelist()):
        print(each, repr(wheel.read(each)) if "RECORD" not in each else "")
"""
MARK = "contents:"


def wheel(folder: Path, backend: str, out: Path) -> str:
    """What a build backend installs in place of the package in a folder."""
    out.mkdir()
    command = [sys.executable, "-c", WHEEL, backend, str(out)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition(MARK)[2]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_backend_makes_the_same_of_it_as_of_the_whole(tmp_path: Path, name: str) -> None:
    files, place = PACKAGES[name], tmp_path / "app"
    backend = "hatchling.build" if "hatch" in name else "setuptools.build_meta"
    make(place, files)
    found = find(Project(place))
    whole = wheel(place, backend, tmp_path / "whole")
    shutil.rmtree(place)  # at the same path, since that is a part of what is installed
    for path in {*found.copied, "pyproject.toml"} & files.keys():
        make(place, {path: files[path]})
    make(place, {f"{folder}/": None for folder in found.folders} | dict.fromkeys(found.empty, ""))
    assert wheel(place, backend, tmp_path / "skeleton") == whole


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"pyproject.toml": BUILD.replace("hatchling.build", "own")}, "is built by own"),
        ({"pyproject.toml": f'{BUILD}backend-path = ["."]\n'}, "a part of its code"),
        ({"pyproject.toml": f'{BUILD}{PROJECT}dynamic = ["readme"]\n'}, "leaves readme"),
        ({"pyproject.toml": f'{BUILD}[project]\nname = "a"\ndynamic = ["version"]\n'}, "version"),
        ({"pyproject.toml": f'{BUILD}{PROJECT}readme = "missing"\n'}, "names missing"),
        ({"pyproject.toml": f"{BUILD}{PROJECT}[tool.hatch.build.hooks.own]\n"}, "hooks.own"),
        (
            {"pyproject.toml": BUILD + PROJECT, **{f"m{n}.py": "" for n in range(51)}},
            "more than 50",
        ),
        ({"setup.py": "import shop"}, "imports shop"),
        ({"setup.py": "from . import a"}, "imports from its own package"),
        ({"setup.py": "import os\nos.listdir()"}, "calls listdir"),
        ({"setup.py": "from setuptools import setup\nsetup(ext_modules=[])"}, "ext_modules"),
        ({"setup.py": "from setuptools import setup\nsetup(**x)"}, r"\*\*"),
        ({"setup.py": 'exec(open("a.py").read())', "a.py": "import b"}, "a.py imports b"),
        ({"setup.cfg": CFG, "shop/__init__.py": "__version__ = f()\n"}, "code that has to run"),
        ({"setup.cfg": "[options]\ncmdclass = x\n"}, "cmdclass"),
    ],
)
def test_what_may_need_all_of_the_code_says_why(
    tmp_path: Path, files: dict[str, str], why: str
) -> None:
    make(tmp_path, files)
    with pytest.raises(NeedsCode, match=why):
        find(Project(tmp_path))


def test_of_a_workspace_each_package_has_one(tmp_path: Path) -> None:
    top = f'{PROJECT}[tool.uv.workspace]\nmembers = ["libs/*"]\nexclude = ["libs/old"]\n'
    make(tmp_path, {"pyproject.toml": top, "libs/a/pyproject.toml": BUILD + PROJECT})
    make(tmp_path, {"libs/a/src/a/__init__.py": "1", "libs/b/pyproject.toml": PROJECT})
    make(tmp_path, {"libs/old/pyproject.toml": BUILD, "more/pyproject.toml": BUILD})
    assert workspace(Project(tmp_path)) == Skeleton(
        ("libs/a/pyproject.toml", "libs/b/pyproject.toml"),
        ("libs/a/src/a",),
        ("libs/a/src/a/__init__.py",),
    )
