"""What is looked at: a machine, and what is wanted of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from imagemill.client import Client
from imagemill.config import LaunchConfig, Loaded
from imagemill.doctor.findings import Finding, Verdict, failure
from imagemill.errors import ImagemillError, PermissionDenied
from imagemill.permissions import Permissions, Use
from imagemill.place import machine
from imagemill.registries.docker_config import DockerConfig


@dataclass(frozen=True)
class Machine:
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
    """A machine with its launch config, and what is known so far."""

    machine: Machine
    config: LaunchConfig
    permissions: Permissions
    """What the config needs."""
    who: dict[str, str] = field(default_factory=dict)
    """Cloud → as whom it knows us."""
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)
    """What has gone wrong so far, and in which check first."""

    def checked(self, check: str, find: Callable[[], Finding], *uses: Use) -> Finding:
        """Return what the check finds. An error is a finding too; where a permission is missing,
        with what grants it.
        """
        try:
            return find()
        except PermissionDenied as error:
            return self._denied(check, error, uses)
        except ImagemillError as error:
            first = self.reasons.setdefault((error.message, error.hint), check)
            if first != check:
                return Finding(check, Verdict.FAILED, f"for the same reason as {first}")
            return failure(check, error)

    def granting(self, refused: str, *uses: Use) -> tuple[str, ...]:
        """Return the pieces of a policy that grant what was refused in one of these uses."""
        return tuple(dict.fromkeys(self.permissions.lines(refused, uses, self.who)))

    def _denied(self, check: str, error: PermissionDenied, uses: Sequence[Use]) -> Finding:
        """Return a refusal, with the actions that were refused as the cloud names them, if it is
        one of a cloud's.
        """
        refused = f"{error.action} {error.message}"
        found, needed = failure(check, error), self.permissions.actions(refused, uses)
        if needed and not any(action in error.message for action in needed):
            found = replace(found, message=f"{error.message}; it takes {', '.join(needed)}")
        if (
            needed and error.action not in needed
        ):  # it is the registry's protocol that knows no better
            found = replace(found, hint=f"grant it to {machine()}'s identity")
        return replace(found, grants=self.granting(refused, *uses))
