"""A source of credentials for adapters under test."""

from dataclasses import dataclass

from imagemill.ports import Credentials
from imagemill.reference import ImageReference
from imagemill.registries.authorization import Login


@dataclass(frozen=True)
class Always:
    """The same credentials, or none, for every repository."""

    found: Credentials | None

    def login(self, repository: ImageReference) -> Login:
        return Login(self.found)
