"""What the environment says of the machine that builds: one reader for workers and command line.

A field `build_timeout` is the variable IMAGEMILL_BUILD_TIMEOUT; its description is its line in
docs/settings.md.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from imagemill.config.faults import shown
from imagemill.errors import OperatorError
from imagemill.sources.options import VARIABLES as SOURCE_VARIABLES
from imagemill.sources.options import SourceOptions

PREFIX = "IMAGEMILL_"

_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {"docker_host": "DOCKER_HOST", "docker_config": "DOCKER_CONFIG"}
)
"""Field → the variable of docker's own that holds where ours is not set."""

_OTHERS = frozenset({"IMAGEMILL_RUN_DIR", "IMAGEMILL_SOURCES"})
"""Variables of the Procfile and of docker-compose.yml, which no worker reads."""

_TESTS = "IMAGEMILL_TEST_"


def listed(value: object) -> object:
    """Return what a text has between its commas and blanks; anything else as it is."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


Hosts = Annotated[frozenset[str], BeforeValidator(listed)]


class NodeSettings(BaseModel):
    """Places, credentials and tools of one machine, be it a worker's or a person's own."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    config: Path | None = Field(
        None,
        description="launch config where a request names none; then that of the W&B agent,"
        " `~/.config/wandb/launch-config.yaml`; default: none",
    )
    config_dir: Path | None = Field(
        None,
        description="folder of the launch configs (`NAME.yaml`) that requests may name; default: none",
    )
    home: Path = Field(
        default_factory=Path.home,
        description="where the W&B agent's own config is looked for; default: the user's",
    )
    state_dir: Path = Field(
        default_factory=lambda: Path.home() / ".cache/imagemill",
        description="scratch, fetched sources, and contexts where the config names no store; default:"
        " `~/.cache/imagemill`",
    )
    build_secrets_dir: Path | None = Field(
        None, description="folder with a file per build secret, named by its id; default: none"
    )
    tenant_keys_dir: Path | None = Field(
        None,
        description="folder with a file per tenant, named as the tenant is, that holds the key which"
        " signs its requests ([security.md](security.md))",
    )
    authorities: Path | None = Field(
        None,
        description="file with certificates, in PEM, of authorities that are trusted besides the system's;"
        " default: none",
    )
    insecure_registries: Hosts = Field(
        frozenset(),
        description="hosts of registries, separated by `,`, that speak plain HTTP; `localhost`"
        " always may; default: none",
    )
    docker_cli: Path | None = Field(
        None, description="the docker command; default: the first on `PATH` with BuildKit"
    )
    docker_host: str | None = Field(
        None,
        description="the engine; default: `DOCKER_HOST`, else the docker command's context",
    )
    docker_config: Path = Field(
        default_factory=lambda: Path.home() / ".docker",
        description="folder of docker's `config.json`, for credentials; default: `DOCKER_CONFIG`,"
        " else `~/.docker`",
    )
    sources: SourceOptions = Field(
        SourceOptions(), repr=False, description="what sources may be read, and how"
    )
    environment: dict[str, str] = Field(
        {}, repr=False, description="what docker and credential helpers are started with"
    )


S = TypeVar("S", bound=NodeSettings)

_NO_VARIABLES = ("sources", "environment")
"""Fields that are made of many variables."""


_MADE = ("cache_dir", "state_dir")
"""Folders that are made where they are not there."""


def variables_of(model: type[NodeSettings]) -> dict[str, str]:
    """Return the variables that settings are read from → their fields."""
    names = [name for name in model.model_fields if name not in _NO_VARIABLES]
    return {f"{PREFIX}{name.upper()}": name for name in names}


def read(model: type[S], variables: Mapping[str, str]) -> S:
    """Return the settings that variables hold; an empty one is none.

    `OperatorError` says what is wrong with each, in a line.
    """
    given: dict[str, Any] = {
        "environment": dict(variables),
        "sources": SourceOptions.from_environment(variables),
    }
    for variable, name in variables_of(model).items():
        value = variables.get(variable) or variables.get(_ELSEWHERE.get(name, ""))
        if value:
            given[name] = value
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = [_fault(model, details, given) for details in error.errors(include_url=False)]
    raise OperatorError(
        "\n".join(faults), "docs/settings.md has what each variable of Imagemill may be"
    )


def doubts(model: type[NodeSettings], settings: NodeSettings) -> Iterator[str]:
    """Yield what is probably not meant: variables that nothing reads, and files that are not there,
    each in a sentence.
    """
    known = {*variables_of(model), *SOURCE_VARIABLES, *_OTHERS}
    for variable in sorted(settings.environment):
        if variable.startswith(PREFIX) and variable not in known:
            if not variable.startswith(_TESTS):
                near = get_close_matches(variable, known, n=1, cutoff=0.8)
                guess = f": did you mean {near[0]}?" if near else ""
                yield f"Nothing reads the variable {variable}{guess}"
        elif variable in known:
            yield from _missing(model, settings, variable)


def _missing(model: type[NodeSettings], settings: NodeSettings, variable: str) -> Iterator[str]:
    name = variables_of(model).get(variable)
    if name in _MADE:
        return
    source = SOURCE_VARIABLES.get(variable)
    value = (
        getattr(settings, name)
        if name
        else getattr(settings.sources, source.option)
        if source
        else None
    )
    for path in value if isinstance(value, tuple) else (value,):
        if not isinstance(path, Path):
            continue
        if not path.is_absolute():
            yield f"{variable}: {path} is no absolute path"
        elif not path.exists():
            yield f"{variable}: there is no {path}"


def _fault(model: type[NodeSettings], details: ErrorDetails, given: Mapping[str, object]) -> str:
    """Say in one line what is wrong; a value that may hold a secret is not repeated."""
    name = str(details["loc"][0]) if details["loc"] else ""
    field = model.model_fields.get(name)
    variable, value = f"{PREFIX}{name.upper()}", given.get(name)
    reason = details["msg"].removeprefix("Value error, ")
    if details["type"] == "missing":
        return f"{variable} is not set: {field.description if field else reason}"
    found = f" is {shown(value)}" if field is None or field.repr else ""
    return f"{variable}{found}: {reason[:1].lower()}{reason[1:]}"
