"""What a worker has for sources, and what it lets them do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from imagemill.errors import OperatorError


@dataclass(frozen=True)
class SourceOptions:
    """The same for every kind of source; each takes what concerns it."""

    roots: tuple[Path, ...] = ()
    """Folders below which sources on this node may lie; none: such sources are refused."""
    max_bytes: int = 32 << 30
    """The most that one source may take on the disk; of a git repository, what git keeps of it
    included.
    """
    max_files: int = 1_000_000
    """The most files that one source may have."""
    insecure_hosts: frozenset[str] = frozenset()
    """`HOST` or `HOST:PORT` of servers that may be spoken to by http:// and git://."""
    networks: tuple[str, ...] = ()
    """Networks, as `10.0.0.0/8`, in which servers of sources may be though they are not public."""
    credentials: Path | None = None
    """Folder with a file per host, `HOST` or `HOST_PORT`, that holds `TOKEN` or `USER:TOKEN`; read
    when it is used.
    """
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The same, where the worker's environment has them: name of the file → what would be in it."""
    submodule_hosts: frozenset[str] = frozenset()
    """`HOST` or `HOST:PORT` whose credentials also submodules of sources on other hosts get."""
    anonymous: bool = False
    """Whether nothing is read with credentials of the worker's: a submodule that is on another host
    than what names it.
    """
    ssh_keys: Path | None = None
    """Folder with a private key per host, `HOST` or `HOST_PORT`, or `default`. None: ssh's own keys
    and agent.
    """
    known_hosts: Path | None = None
    """File of the host keys that are trusted. None: ssh's own. A host in neither is refused."""
    git_config: Path | None = None
    """The operator's git config, for its credential helpers, proxies and certificates; ours is laid
    over it.
    """
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What git is started with: PATH, HOME, proxies, what credential helpers need."""
    attended: bool = False
    """Whether a person at a terminal asks, who may read what this machine can."""
    check_place: Callable[[str], None] | None = field(default=None, repr=False, compare=False)
    """Raises where a repository that a source names, as its submodule, is not allowed."""
    scratch: Path | None = None
    """Where folders for a moment are made; None: in the system's."""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str], **given: Any) -> Self:
        """Return the options by a worker's variables, and those that are `given`; `OperatorError`
        if one cannot be read.

        What git and credential helpers are started with are the variables that are not Imagemill's
        own.
        """
        environment = {
            name: value for name, value in variables.items() if not name.startswith("IMAGEMILL_")
        }
        read = {
            variable.option: _read(name, variables[name], variable.read)
            for name, variable in VARIABLES.items()
            if variables.get(name)
        }
        attended = variables.get("IMAGEMILL_ATTENDED") == "1"
        return cls(**{"environment": environment, "attended": attended, **read, **given})


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(part) for part in text.split(":") if part)


def _hosts(text: str) -> frozenset[str]:
    return frozenset(part.lower() for part in text.replace(",", " ").split())


def _networks(text: str) -> tuple[str, ...]:
    return tuple(str(ip_network(part)) for part in text.replace(",", " ").split())


def _tokens(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split()]
    if not all(host and token for host, _, token in pairs):
        raise ValueError
    return {host.lower().replace(":", "_"): token for host, _, token in pairs}


def _bytes(text: str) -> int:
    from pydantic import ByteSize, TypeAdapter  # few set what has bytes

    return TypeAdapter(ByteSize).validate_python(text)


class Variable(NamedTuple):
    """A variable of the environment that sets an option; `description` is its line in the docs."""

    option: str
    read: Callable[[str], Any]
    description: str


VARIABLES: Mapping[str, Variable] = MappingProxyType(
    {
        "IMAGEMILL_SOURCE_ROOTS": Variable(
            "roots",
            _paths,
            "folders, separated by `:`, that local sources may lie in; default: none, and there are"
            " no local sources",
        ),
        "IMAGEMILL_SOURCE_MAX_BYTES": Variable(
            "max_bytes",
            _bytes,
            "the most that one source may take on the disk; default: 32 GiB",
        ),
        "IMAGEMILL_SOURCE_MAX_FILES": Variable(
            "max_files", int, "the most files that one source may have; default: 1000000"
        ),
        "IMAGEMILL_SOURCE_INSECURE_HOSTS": Variable(
            "insecure_hosts",
            _hosts,
            "`HOST` or `HOST:PORT` that sources may be read from by `http://` and `git://`; default:"
            " none",
        ),
        "IMAGEMILL_SOURCE_NETWORKS": Variable(
            "networks",
            _networks,
            "networks, as `10.0.0.0/8`, whose servers sources may be read from though they are not"
            " public; default: none",
        ),
        "IMAGEMILL_SOURCE_SUBMODULE_HOSTS": Variable(
            "submodule_hosts",
            _hosts,
            "`HOST` or `HOST:PORT` whose credentials also submodules of sources on other hosts get;"
            " default: none",
        ),
        "IMAGEMILL_SOURCE_CREDENTIALS": Variable(
            "credentials",
            Path,
            "folder with a file per host that holds `TOKEN` or `USER:TOKEN`"
            " ([sources.md](sources.md)); default: none",
        ),
        "IMAGEMILL_SOURCE_TOKENS": Variable(
            "tokens", _tokens, "the same as `HOST=TOKEN HOST:PORT=USER:TOKEN`; default: none"
        ),
        "IMAGEMILL_GIT_SSH_KEYS": Variable(
            "ssh_keys", Path, "folder with a deploy key per host; default: ssh's own keys and agent"
        ),
        "IMAGEMILL_GIT_KNOWN_HOSTS": Variable(
            "known_hosts", Path, "file of the host keys that are trusted; default: ssh's own"
        ),
        "IMAGEMILL_GIT_CONFIG": Variable(
            "git_config",
            Path,
            "a git config for credential helpers, proxies and certificates; default: none",
        ),
    }
)


def _read(name: str, text: str, parse: Callable[[str], Any]) -> Any:
    """Return the value of a variable; it may be a secret, so that the error does not repeat it."""
    try:
        return parse(text)
    except ValueError:
        raise OperatorError(
            f"The variable {name} cannot be read", "docs/settings.md says how it is written"
        ) from None
