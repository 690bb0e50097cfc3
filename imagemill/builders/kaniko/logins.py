"""What a build pod logs in to registries with: the destination's login, narrowed to what the build
does where the registry can, and the worker's for the images that the Dockerfile names.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from imagemill.builders.kaniko.arguments import flag
from imagemill.builders.kaniko.overlay import executor
from imagemill.builders.kaniko.pod_credentials import needs_docker_secret, takes_docker_config
from imagemill.config.model import Environment, KanikoBuilder
from imagemill.dockerfile.images import images
from imagemill.errors import UserError
from imagemill.ports import BuildInputs, Credentials, PushRole, Registry, StoredContext
from imagemill.reference import DOCKER_HUB, ImageReference
from imagemill.registries.docker_config import DockerConfig

_GOES_FURTHER = frozenset({"cache", "cache-repo", "destination", "registry-map", "registry-mirror"})
"""Arguments of the executor by which it asks registries for more than the Dockerfile says."""

_SESSION_NAME = 64
"""The most characters of a session's name at AWS."""


@dataclass(frozen=True)
class BuildLogins:
    """The logins of one build; where they come from is asked anew each time."""

    section: KanikoBuilder
    environment: Environment
    inputs: BuildInputs
    registry: Registry
    docker_config: DockerConfig
    images: frozenset[str]
    """What the Dockerfile names; what is none of them fails in the build, with its line."""

    def find(self) -> dict[str, Credentials]:
        """Return them by their places in docker's `config.json`: hosts, or folders of hosts."""
        image = self.inputs.image
        if not takes_docker_config(self.section, self.environment, image):
            return {}
        own = self._own()
        found = {} if own is None else {image.registry: own}
        for base in self.bases:
            login = self.docker_config.login(base).credentials
            if base.registry != image.registry:
                place = base.registry
            elif (
                own
                and not own.registry_token
                and login != self.docker_config.login(self.inputs.image).credentials
            ):
                # Kaniko knows Docker Hub by its first name.
                host = "index.docker.io" if base.registry == DOCKER_HUB else base.registry
                place = f"{host}/{base.path}"
            else:
                continue
            if login is not None:
                found[place] = login
        return found

    def _own(self) -> Credentials | None:
        image = self.inputs.image
        if not needs_docker_secret(self.section, self.environment, image):
            return None
        return self._narrow() or self.registry.credentials(image)

    def _narrow(self) -> Credentials | None:
        """Return a token for what the build does with the registry, where all of that is known."""
        arguments = executor(self.section.kaniko_config).get("args") or ()
        if any("$" in name for name in self.images) or not _GOES_FURTHER.isdisjoint(
            map(flag, arguments)
        ):
            return None
        image, cache = self.inputs.image, self.inputs.layer_cache
        caches = [cache] if cache and cache.registry == image.registry else []
        pulled = [base for base in self.bases if base.registry == image.registry]
        role = None
        if self.section.push_role:
            session = f"imagemill-{self.inputs.build_id}"[:_SESSION_NAME]
            role = PushRole(self.section.push_role, session)
        return self.registry.push_token(image, caches, pulled, role)

    @property
    def bases(self) -> list[ImageReference]:
        """Return the images that the Dockerfile names and that are some."""
        found = []
        for name in sorted(self.images):
            with suppress(UserError):
                found.append(ImageReference.parse(name))
        return found


def named_images(context: StoredContext, build_args: Mapping[str, str]) -> frozenset[str]:
    """Return the images that the Dockerfile of a context names."""
    return frozenset(images(context.dockerfile(), build_args))
