"""What a worker has for sources, and what it lets them do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from pydantic import ByteSize, TypeAdapter

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
    """Networks, as `10.0.0.0/8`, in which servers of archives may be though they are not public."""
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
    check_place: Callable[[str], None] | None = field(default=None, repr=False, compare=False)
    """Raises where a repository that a source names, as its submodule, is not allowed."""
    scratch: Path | None = None
    """Where folders for a moment are made; None: in the system's."""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str], **given: Any) -> Self:
        """The options by a worker's variables, and those that are `given`; `OperatorError` if one
        cannot be read.

        What git and credential helpers are started with are the variables that are not Imagemill's
        own.
        """
        environment = {
            name: value for name, value in variables.items() if not name.startswith("IMAGEMILL_")
        }
        named = [name for name in VARIABLES if variables.get(name)]
        read = {
            VARIABLES[name][0]: _read(name, variables[name], VARIABLES[name][1]) for name in named
        }
        return cls(**{"environment": environment, **read, **given})


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


VARIABLES: Mapping[str, tuple[str, Callable[[str], Any]]] = MappingProxyType(
    {
        "IMAGEMILL_SOURCE_ROOTS": ("roots", _paths),
        "IMAGEMILL_SOURCE_MAX_BYTES": ("max_bytes", TypeAdapter(ByteSize).validate_python),
        "IMAGEMILL_SOURCE_MAX_FILES": ("max_files", int),
        "IMAGEMILL_SOURCE_INSECURE_HOSTS": ("insecure_hosts", _hosts),
        "IMAGEMILL_SOURCE_NETWORKS": ("networks", _networks),
        "IMAGEMILL_SOURCE_SUBMODULE_HOSTS": ("submodule_hosts", _hosts),
        "IMAGEMILL_SOURCE_CREDENTIALS": ("credentials", Path),
        "IMAGEMILL_SOURCE_TOKENS": ("tokens", _tokens),
        "IMAGEMILL_GIT_SSH_KEYS": ("ssh_keys", Path),
        "IMAGEMILL_GIT_KNOWN_HOSTS": ("known_hosts", Path),
        "IMAGEMILL_GIT_CONFIG": ("git_config", Path),
    }
)
"""Variable → the option that it sets, and what reads it."""


def _read(name: str, text: str, parse: Callable[[str], Any]) -> Any:
    """The value of a variable; it may be a secret, so that the error does not repeat it."""
    try:
        return parse(text)
    except ValueError:
        raise OperatorError(
            f"The variable {name} cannot be read", "docs/operating.md says how it is written"
        ) from None
