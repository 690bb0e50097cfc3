"""Finding and reading the launch config: which file it is, what it says, and what is wrong with it
and where.

Nothing here reads the environment: whoever calls says where to look.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from imagemill.config.explain import explain
from imagemill.config.faults import Fault, KeyPath, dotted
from imagemill.config.kaniko_job import executor_of, literal_secrets, overruled, without_secrets
from imagemill.config.legacy import DESTINATION, rewrite
from imagemill.config.model import KanikoBuilder, LaunchConfig
from imagemill.config.regions import mismatch, store_region
from imagemill.config.store_key import AGENTS_KEY, AGENTS_SECRET, takes_agents_key
from imagemill.encoding import decoded
from imagemill.errors import ConfigError, UserError
from imagemill.grammar import CONFIG

if TYPE_CHECKING:
    from imagemill.config.yaml_document import Document

MAX_BYTES = 256 * 1024
"""The size of a config file; PyYAML takes seconds for more."""

IN_HOME = Path(".config/wandb/launch-config.yaml")
"""Where the W&B agent looks, within the home folder."""


@dataclass(frozen=True)
class Loaded:
    """A config, where it came from, and what its author should know."""

    config: LaunchConfig
    path: Path | None = None
    """`None`: no file was found, all are defaults."""
    warnings: tuple[str, ...] = ()
    document: "Document | None" = field(default=None, repr=False, compare=False)
    """Where in the file everything is."""


def load_found(
    *,
    explicit: Path | None,
    name: str | None,
    folder: Path | None,
    environment_file: Path | None,
    home: Path,
) -> Loaded:
    """Return the config of the file that `find` finds, or all defaults."""
    path = find(
        explicit=explicit, name=name, folder=folder, environment_file=environment_file, home=home
    )
    return load(path) if path else Loaded(LaunchConfig())


def find(
    *,
    explicit: Path | None,
    name: str | None,
    folder: Path | None,
    environment_file: Path | None,
    home: Path,
) -> Path | None:
    """Return the file to read, the first of: `explicit`; NAME.yaml in `folder`; `environment_file`;
    the W&B agent's in `home`.

    A name comes from a request, so it is never a path. `ConfigError` if a file that was asked for
    is not there.
    """
    if explicit is not None:
        return _existing(explicit, f"There is no config file {explicit}")
    if name is not None:
        return _named(name, folder)
    if environment_file is not None:
        return _existing(
            environment_file,
            f"There is no config file {environment_file}, which IMAGEMILL_CONFIG names",
        )
    return home / IN_HOME if _exists(home / IN_HOME) else None


def _named(name: str, folder: Path | None) -> Path:
    if not CONFIG.fits(name):
        raise ConfigError(
            "The name of a config that the request gives is none",
            "a name is letters, digits, '_', '.' and '-'; NAME.yaml is looked for in the workers' config folder",
        )
    if folder is None:
        raise ConfigError(
            f"The request names the config {name}, but the workers have no config folder",
            "set IMAGEMILL_CONFIG_DIR on the workers, or leave the name out",
        )
    return _existing(folder / f"{name}.yaml", f"There is no config {name} in {folder}")


def _existing(path: Path, message: str) -> Path:
    if _exists(path):
        return path
    try:
        names = sorted(file.stem for file in path.parent.glob("*.yaml"))
    except OSError:
        names = []
    near = get_close_matches(path.stem, names, n=1)
    found = (
        f"there are: {', '.join(names)}" if names else f"there is no .yaml file in {path.parent}"
    )
    raise ConfigError(message, f"did you mean {near[0]}? {found}" if near else found)


def _exists(path: Path) -> bool:
    """Whether there is a file; `ConfigError` if that cannot be found out."""
    try:
        path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError(f"{path}: the config file is a link to nothing") from None
        return False
    except NotADirectoryError:
        return False
    except OSError as error:
        raise _unreadable(path, error) from None
    return True


def load(path: Path) -> Loaded:
    """Read a config file; `ConfigError` lists all that is wrong with it, each as `FILE:LINE: KEY:
    …`.
    """
    from imagemill.config.yaml_document import DocumentError, parse  # where there is a file

    try:
        document = parse(_text(path))
    except DocumentError as error:
        raise ConfigError(f"{path}:{error.line}: {error.message}", error.hint) from None
    rewritten = rewrite(document.data)
    faults = [*document.faults, *rewritten.faults]
    try:
        config = LaunchConfig.model_validate(rewritten.data)
    except ValidationError as error:
        faults += _further(explain(error), faults, rewritten.destination)
    if faults:
        raise refusal(path, document, faults)
    warnings = [
        *rewritten.warnings,
        *_secrets(config),
        *_overruled(config),
        *_elsewhere(config, rewritten.destination),
    ]
    return Loaded(config, path, tuple(_warnings(path, document, warnings)), document)


def _further(found: Iterable[Fault], before: list[Fault], destination: KeyPath) -> Iterator[Fault]:
    """Yield the faults that are not mere consequences of those found before, where the file has
    them.
    """
    known = {fault.path for fault in before}
    if any(fault.path[:1] == ("registry",) for fault in before):
        known.add(DESTINATION)
    for fault in found:
        if fault.path not in known:
            yield replace(fault, path=destination) if fault.path == DESTINATION else fault


def refusal(path: Path, document: "Document", faults: list[Fault]) -> ConfigError:
    """Return the error that lists the faults, each as `FILE:LINE: KEY: …`."""
    placed = sorted(((document.line(fault.path), fault) for fault in faults), key=itemgetter(0))
    lines = [
        f"{path}:{line}: {dotted(fault.path, document.written)}: {fault.message}"
        for line, fault in placed
    ]
    hints = [(line, fault.hint) for line, fault in placed if fault.hint]
    hint = "; ".join(
        f"line {line}: {hint}" if len(placed) > 1 else hint for line, hint in dict.fromkeys(hints)
    )
    return ConfigError("\n".join(lines), hint)


def _warnings(
    path: Path, document: "Document", warnings: list[tuple[KeyPath, str]]
) -> Iterator[str]:
    if document.empty:
        yield f"{path}: the file is empty, so all is left to the defaults"
    if document.within:
        yield f"{path}: these are a chart's values, of which {document.within} is the launch config"
    yield from _placed(path, document, warnings)


def _placed(
    path: Path, document: "Document", warnings: Iterable[tuple[KeyPath, str]]
) -> Iterator[str]:
    for at, text in warnings:
        yield f"{path}:{document.line(at)}: {dotted(at, document.written)}: {text}"


def _secrets(config: LaunchConfig) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(config.builder, KanikoBuilder):
        for path, name in literal_secrets(config.builder.kaniko_config):
            text = f"{name} seems to hold a secret, which all can read who can read the config or its Jobs"
            yield path, f"{text}; take it from a Kubernetes Secret (valueFrom.secretKeyRef)"


def _overruled(config: LaunchConfig) -> Iterator[tuple[KeyPath, str]]:
    """Yield what a Job of ours does otherwise than `kaniko-config` says."""
    if isinstance(config.builder, KanikoBuilder):
        for path, why in overruled(config.builder.kaniko_config):
            yield path, f"not used: {why}"


def _by_default(config: LaunchConfig) -> Iterator[tuple[KeyPath, str]]:
    """Yield what the Job of a build takes though the config does not say it."""
    builder = config.builder
    if not isinstance(builder, KanikoBuilder):
        return
    store = ("builder", "build_context_store")
    if takes_agents_key(builder):
        yield (
            store,
            f"build pods take the store's key from the Secret {AGENTS_SECRET}, key {AGENTS_KEY}, as"
            " the W&B agent's do, since the config names no other",
        )
    said = {each["name"] for each in executor_of(builder.kaniko_config).get("env") or ()}
    if (
        builder.build_context_store.startswith("s3:")
        and store_region(config) is None
        and said.isdisjoint(("AWS_REGION", "AWS_DEFAULT_REGION", "S3_ENDPOINT"))
    ):
        yield (
            store,
            "nothing in the config tells build pods the region of this S3 store: set AWS_REGION in"
            " kaniko-config, or environment.type aws with its region, unless the workers have an"
            " endpoint of their own (AWS_ENDPOINT_URL_S3)",
        )


def _elsewhere(config: LaunchConfig, destination: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if text := mismatch(config):
        yield destination, text


def advice(loaded: Loaded) -> tuple[str, ...]:
    """Return what the author of a config should know who looks at it, beside its warnings: what
    builds take from elsewhere.
    """
    if loaded.path is None or loaded.document is None:
        return ()
    return tuple(_placed(loaded.path, loaded.document, _by_default(loaded.config)))


def describe(loaded: Loaded) -> dict[str, Any]:
    """Plain data to show people: the `file`, the `config` with all its defaults, the `warnings`.

    Keys have hyphens, as in the documentation; values that may be secrets are left out.
    """
    sections = loaded.config.model_dump(mode="json", exclude_none=True)
    for content in sections.values():
        if "kaniko_config" in content:
            content["kaniko_config"] = without_secrets(content["kaniko_config"])
    return {
        "file": None if loaded.path is None else str(loaded.path),
        "config": {
            section: _for_people(content) for section, content in sections.items() if content
        },
        "warnings": list(loaded.warnings),
    }


def _for_people(content: dict[str, Any]) -> dict[str, Any]:
    """Return the type first, since the other keys depend on it."""
    first = {"type": content["type"]} if "type" in content else {}
    shown = first | {key.replace("_", "-"): value for key, value in content.items()}
    if "tenants" in shown:
        shown["tenants"] = {name: _for_people(rules) for name, rules in shown["tenants"].items()}
    return shown


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"{path}:1: found more than {MAX_BYTES // 1024} KiB, expected a launch config"
        )
    try:
        return decoded(content, str(path))
    except UserError as error:
        raise ConfigError(error.message, error.hint) from None


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path}: the config file cannot be read: {error.strerror}")
