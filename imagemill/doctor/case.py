"""What is looked at: a place, and what is wanted of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from imagemill.client import Client
from imagemill.config import LaunchConfig, Loaded
from imagemill.doctor.findings import Finding, Verdict, failure
from imagemill.errors import ImagemillError, PermissionDenied
from imagemill.permissions import Permissions, Use
from imagemill.registries.docker_config import DockerConfig


@dataclass(frozen=True)
class Place:
    """What is to be looked at: this machine, and the service, if there is one."""

    config: Callable[[], Loaded]
    destination: str | None
    docker_cli: Path | None
    docker_host: str | None
    docker_config: DockerConfig
    insecure_registries: frozenset[str]
    client: Client | None
    environment: Mapping[str, str] = field(repr=False)


@dataclass
class Case:
    """A place with its launch config, and what is known so far."""

    place: Place
    config: LaunchConfig
    permissions: Permissions
    """What the config needs."""
    who: str = ""
    """As whom the cloud of the config knows us."""
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)
    """What has gone wrong so far, and in which check first."""

    def checked(self, check: str, find: Callable[[], Finding], *uses: Use) -> Finding:
        """What the check finds. An error is a finding too; where a permission is missing, with what grants it."""
        try:
            return find()
        except PermissionDenied as error:
            return replace(failure(check, error), grants=self.granting(error.action or error.message, *uses))
        except ImagemillError as error:
            first = self.reasons.setdefault((error.message, error.hint), check)
            if first != check:
                return Finding(check, Verdict.FAILED, f"for the same reason as {first}")
            return failure(check, error)

    def granting(self, refused: str, *uses: Use) -> tuple[str, ...]:
        """The pieces of a policy that grant what was refused; none where the cloud does not even know us."""
        if self.config.environment.type != "local" and not self.who:
            return ()
        return tuple(dict.fromkeys(self.permissions.lines(refused, uses, self.who)))
