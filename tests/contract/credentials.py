"""A source of credentials for adapters under test."""

from dataclasses import dataclass

from imagemill.ports import Credentials


@dataclass(frozen=True)
class Always:
    """The same credentials, or none, for every host."""

    found: Credentials | None

    def credentials(self, host: str) -> Credentials | None:
        return self.found
