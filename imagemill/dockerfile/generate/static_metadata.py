"""What Python code and `setup.cfg` declare in plain sight, read without running anything."""

import ast
import configparser
import tomllib
from dataclasses import dataclass
from typing import Any

from imagemill.dockerfile.generate.project import Project, strings, table
from imagemill.errors import UserError
from imagemill.patterns import Linear

HATCH_HOOKS = ("tool", "hatch", "metadata", "hooks")
HATCH_REQUIREMENTS = "requirements_txt"
"""The hook https://github.com/repo-helper/hatch-requirements-txt."""

_SCRIPT = Linear(r"(?m)^# /// script\s*$\s(?P<content>(?:^#(?:| .*)$\s)+?)^# ///$")
"""PEP 723: https://packaging.python.org/en/latest/specifications/inline-script-metadata/."""

_TOP = 1 << 15
"""Characters at the top of a script in which the block is looked for: its pattern takes quadratic
time.
"""


@dataclass(frozen=True)
class Declared:
    """What one file declares; None: nothing, or nothing that can be read without running it."""

    path: str
    dependencies: tuple[str, ...] | None = None
    python: str | None = None
    scripts: tuple[str, ...] = ()
    name: str = ""


def setup_py(project: Project) -> Declared:
    """Return the literals among the arguments of `setup()` in `setup.py`, and lists that a variable
    of the module holds.
    """
    tree = parsed(project, "setup.py")
    known: dict[str, ast.expr] = {}
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and isinstance(node.targets[0], ast.Name)
        ):
            known[node.targets[0].id] = node.value
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and called(node.func) == "setup"
    ]
    arguments = {word.arg: word.value for call in calls for word in call.keywords if word.arg}
    complete = bool(calls) and all(word.arg for call in calls for word in call.keywords)
    literal = {name: _literal(value, known) for name, value in arguments.items()}
    required = literal.get("install_requires", () if complete else None)
    return Declared(
        "setup.py",
        strings(required, "setup.py: install_requires")
        if isinstance(required, list | tuple)
        else None,
        literal["python_requires"] if isinstance(literal.get("python_requires"), str) else None,
        _entry_points(literal.get("entry_points")),
        str(literal.get("name") or ""),
    )


def setup_cfg(project: Project) -> Declared:
    """Return the options of `setup.cfg`
    (https://setuptools.pypa.io/en/latest/userguide/declarative_config.html).
    """
    try:
        parser = ini(project.text("setup.cfg"))
    except configparser.Error as error:
        raise UserError(
            f"setup.cfg:{_line(error)}: this is not an INI file", "correct the file"
        ) from None
    required = parser.get("options", "install_requires", fallback=None)
    lines = None if required is None else [line.strip() for line in required.split("\n")]
    from_file = bool(lines) and required is not None and required.strip().startswith("file:")
    return Declared(
        "setup.cfg",
        None
        if lines is None or from_file
        else tuple(line for line in lines if line and not line.startswith("#")),
        parser.get("options", "python_requires", fallback=None),
        tuple(_names(parser.get("options.entry_points", "console_scripts", fallback=""))),
        parser.get("metadata", "name", fallback=""),
    )


def ini(text: str) -> configparser.ConfigParser:
    """Read an INI file; `configparser.Error` for the first line that is wrong.

    The parser itself would go on, and tell of all of them at once, in time that grows with the
    square of their number.
    """
    parser = configparser.ConfigParser(interpolation=None, allow_no_value=True)
    parser.read_string(text)
    for section in parser.values():
        if valueless := next((name for name, value in section.items() if value is None), None):
            lines = [line.strip().lower() for line in text.split("\n")]
            error = configparser.ParsingError("setup.cfg")
            error.append(lines.index(valueless) + 1 if valueless in lines else 1, valueless)
            raise error
    return parser


def script(project: Project, path: str) -> Declared:
    """Return the block `# /// script` at the top of a script; nothing if there is none."""
    code = project.python(path)
    match = _SCRIPT.search(code[:_TOP])
    if match is None:
        return Declared(path)
    content = "".join(
        line[2:] if line.startswith("# ") else line[1:]
        for line in match["content"].splitlines(True)
    )
    try:
        block = tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        line = code.count("\n", 0, match.start()) + 1
        raise UserError(
            f"{path}:{line}: the block of metadata is not TOML: {error}", "correct the block"
        ) from None
    required = strings(block.get("dependencies", []), f"{path}: dependencies")
    python = block.get("requires-python")
    return Declared(path, required, python if isinstance(python, str) else None)


def parsed(project: Project, path: str) -> ast.Module:
    """Return the syntax tree of a Python file; `UserError` names the line where it is not Python."""
    return syntax(project.python(path), path)


def syntax(code: str, path: str) -> ast.Module:
    """Return the syntax tree of code; `UserError` names path and line where it is not Python."""
    try:
        return ast.parse(code)
    except SyntaxError as error:
        raise UserError(
            f"{path}:{error.lineno or 1}: this is not Python: {error.msg}", "correct the file"
        ) from None
    except ValueError as error:  # a null byte
        raise UserError(f"{path}: this is not Python: {error}", "correct the file") from None
    except (RecursionError, MemoryError):  # the latter is what the parser says of its own stack
        raise UserError(f"{path}: this is nested too deeply", "correct the file") from None


def dynamic_files(document: dict[str, Any]) -> tuple[str, ...]:
    """Return the files that dynamic dependencies are taken from, by setuptools
    (`[tool.setuptools.dynamic]`) or by a hook of Hatch's.
    """
    dependencies = table(document, "pyproject.toml", "tool", "setuptools", "dynamic").get(
        "dependencies"
    )
    files = dependencies.get("file", ()) if isinstance(dependencies, dict) else ()
    if HATCH_REQUIREMENTS in table(document, "pyproject.toml", *HATCH_HOOKS):
        hook = table(document, "pyproject.toml", *HATCH_HOOKS, HATCH_REQUIREMENTS)
        files = hook.get("filename") or hook.get("files", "requirements.txt")
    return (
        (files,)
        if isinstance(files, str)
        else strings(files, "pyproject.toml: dynamic dependencies")
    )


def called(function: ast.expr) -> str:
    """Return the name of what is called, without what it is an attribute of; empty if it has none."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _literal(value: ast.expr, known: dict[str, ast.expr]) -> Any:
    if isinstance(value, ast.Name) and value.id in known:
        value = known[value.id]
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _entry_points(value: object) -> tuple[str, ...]:
    scripts = value.get("console_scripts", ()) if isinstance(value, dict) else ()
    lines = map(str, scripts) if isinstance(scripts, list | tuple) else [str(scripts)]
    return tuple(_names("\n".join(lines)))


def _names(lines: str) -> list[str]:
    return [line.partition("=")[0].strip() for line in lines.split("\n") if "=" in line]


def _line(error: configparser.Error) -> int:
    errors = getattr(error, "errors", None)
    return int(errors[0][0]) if errors else int(getattr(error, "lineno", 1) or 1)
