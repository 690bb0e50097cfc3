"""What `setup.py` and `setup.cfg` look at when a package is installed in place, found without running
anything.

`setup.py` is a program: where all that it imports and calls is known to look at nothing but files
that it names, those files are what it needs.
"""

import ast
import configparser
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from imagemill.dockerfile.generate.project import Project
from imagemill.dockerfile.generate.static_metadata import called, ini, parsed

_IMPORTED = frozenset((
    "__future__", "ast", "codecs", "datetime", "distutils", "io", "json", "logging", "os",
    "pathlib", "platform", "re", "setuptools", "sys", "textwrap", "typing", "warnings",
))  # fmt: skip
"""Modules that a `setup.py` may import: what they could look at is named, or in `_CALLED`."""

_CALLED = frozenset((
    "Extension", "__import__", "eval", "glob", "import_module", "iterdir", "listdir",
    "popen", "rglob", "scandir", "spawn", "system", "walk",
))  # fmt: skip
"""Names of what may look at anything, or build something."""

_KEYWORDS = frozenset(["cffi_modules", "cmdclass", "distclass", "ext_modules", "rust_extensions"])
"""Arguments of `setup` with which more than an installation in place happens."""

_MOST_FILES, _MOST_CODE = 20, 256 << 10
"""What is looked through of it: files, and characters in all."""


class NeedsCode(Exception):  # noqa: N818 - it is an answer
    """Why a package cannot be installed before its code is there, in words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class SetupFile:
    """What one of the two says, in paths relative to its folder."""

    files: tuple[str, ...]
    packages: tuple[str, ...]
    top: str | None = None
    """The folder that modules are in; None if it does not say."""


def setup_py(project: Project, folder: str) -> SetupFile | None:
    """Return what `setup.py` needs; None if there is none. `NeedsCode` if it may look at anything."""
    path = posixpath.join(folder, "setup.py")
    if not project.has(path):
        return None
    tree = parsed(project, path)
    _check_program(project, folder, path, tree)
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    places = [
        ast.literal_eval(word.value)
        for word in _setup_arguments(tree)
        if word.arg == "package_dir" and _is_literal(word.value)
    ]
    top = places[0].get("") if places and isinstance(places[0], dict) else None
    top = top if isinstance(top, str) else None
    found = _named(project, folder, texts, top)
    others = [posixpath.join(folder, each) for each in found.files if each.endswith(".py")]
    if sum(len(project.python(each)) for each in others) > _MOST_CODE:
        raise NeedsCode(f"{path} may run more than {_MOST_CODE >> 10} KiB of code")
    for each in others:
        _check_program(project, folder, each, None)
    return SetupFile(("setup.py", *found.files), found.packages, top)


def setup_cfg(project: Project, folder: str) -> SetupFile | None:
    """Return the same of `setup.cfg`."""
    path = posixpath.join(folder, "setup.cfg")
    if not project.has(path):
        return None
    try:
        parser = ini(project.text(path))
    except configparser.Error:
        raise NeedsCode(f"{path} cannot be read") from None
    if parser.has_option("options", "cmdclass"):
        raise NeedsCode(f"{path} has cmdclass")
    top = None
    for name, _, value in _pairs(parser.get("options", "package_dir", fallback="")):
        top = value if not name else top
    sections = ("metadata", "options", "options.packages.find")
    values = [
        value for name in sections if parser.has_section(name) for _, value in parser.items(name)
    ]
    words = {word for value in values for word in re.split(r"[\s,;=]+", value)}
    found = _named(project, folder, words, top)
    version = parser.get("metadata", "version", fallback="")
    attributes = (
        [module_of(project, folder, top or "", version.partition(":")[2].strip(), path)]
        if version.startswith("attr:")
        else []
    )
    return SetupFile(("setup.cfg", *attributes, *found.files), found.packages, top)


def module_of(project: Project, folder: str, top: str, name: str, where: str) -> str:
    """Return the file, relative to the folder, of the module that says in plain sight what an
    attribute such as `shop.__version__` is.
    """
    module, _, attribute = name.rpartition(".")
    base = posixpath.join(top, module.replace(".", "/"))
    for path in (f"{base}.py", posixpath.join(base, "__init__.py")):
        full = posixpath.normpath(posixpath.join(folder, path))
        if project.has(full) and _says(parsed(project, full), attribute):
            return path
    raise NeedsCode(f"{where} takes {name} from code that has to run")


def _says(tree: ast.Module, attribute: str) -> bool:
    if attribute == "__doc__":
        return ast.get_docstring(tree) is not None
    return any(
        isinstance(node, ast.Assign)
        and any(isinstance(each, ast.Name) and each.id == attribute for each in node.targets)
        and _is_literal(node.value)
        for node in tree.body
    )


def _is_literal(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _setup_arguments(tree: ast.Module) -> Iterator[ast.keyword]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called(node.func) == "setup":
            yield from node.keywords


def _check_program(project: Project, folder: str, path: str, tree: ast.Module | None) -> None:
    """Raise `NeedsCode` if the program may look at more than it names."""
    tree = tree or parsed(project, path)
    for node in ast.walk(tree):
        for module in _modules(node):
            if module.partition(".")[0] not in _IMPORTED:
                raise NeedsCode(f"{path} imports {module or 'from its own package'}")
        name = called(node.func) if isinstance(node, ast.Call) else ""
        if name in _CALLED:
            raise NeedsCode(f"{path} calls {name}")
    for word in _setup_arguments(tree):
        if word.arg is None or word.arg in _KEYWORDS:
            raise NeedsCode(f"{path} calls setup with {word.arg or '**'}")


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["" if node.level else str(node.module)]
    return []


def _named(project: Project, folder: str, texts: Collection[str], top: str | None) -> SetupFile:
    """Return files and packages that any of the texts may mean: rather too many than too few."""
    prefix = f"{folder}/" if folder else ""
    endings = tuple(text for text in texts if re.search(r"\.\w+$", text))
    names = {text.strip("/").rpartition("/")[2] for text in texts} - {""}
    inside = [each.removeprefix(prefix) for each in project.files if each.startswith(prefix)]
    files = [path for path in inside if posixpath.basename(path) in names or path.endswith(endings)]
    files = [path for path in files if posixpath.basename(path) not in ("setup.py", "setup.cfg")]
    if len(files) > _MOST_FILES:
        raise NeedsCode(f"{prefix}setup.py may read any of {len(files)} files")
    return SetupFile(tuple(files), tuple(_packages(project, prefix, texts, top or "")))


def _packages(project: Project, prefix: str, texts: Iterable[str], top: str) -> Iterator[str]:
    for text in sorted(texts):
        path = posixpath.join(top, text.replace(".", "/"))
        if re.fullmatch(r"\w+(\.\w+)*", text) and project.has(f"{prefix}{path}/__init__.py"):
            yield path


def _pairs(text: str) -> Iterator[tuple[str, str, str]]:
    for line in text.strip().split("\n"):
        name, equals, value = line.partition("=")
        if equals:
            yield name.strip(), equals, value.strip()
