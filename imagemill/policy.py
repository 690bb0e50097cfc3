"""Says no where the policy of a launch config does: in words that name the rule."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from imagemill.config.policy import Policy, Rules, allows
from imagemill.dockerfile.images import images
from imagemill.errors import PermissionDenied, UserError
from imagemill.messages import BuildRequest
from imagemill.reference import DOCKER_HUB, ImageReference
from imagemill.text import one_line

_SHOWN = 200


@dataclass(frozen=True)
class Permit:
    """What one requester may have: all of these rules hold, each with the name of its place."""

    rules: tuple[tuple[str, Rules], ...] = ()

    @classmethod
    def of(cls, policies: Iterable[Policy | None], tenant: str | None) -> Self:
        """Return the permit of a tenant, or of a requester who is none; `PermissionDenied` where
        only tenants are served, and this is none of them.
        """
        return cls(tuple(pair for each in policies if each for pair in _rules(each, tenant)))

    @property
    def limits_images(self) -> bool:
        """Whether there are rules about what Dockerfiles build from."""
        return any(rules.base_images is not None for _, rules in self.rules)

    def check_request(self, request: BuildRequest) -> None:
        """Raise `PermissionDenied` if the request asks for what is not allowed, as far as the
        request alone shows it.
        """
        for key, names in (
            ("tags", request.tags),
            ("secrets", request.secrets),
            ("ssh", request.ssh),
            ("build_args", request.build_args),
            ("configs", filter(None, [request.config])),
            ("platforms", request.platforms),
        ):
            for name in names:
                self._check(key, name)
        # What one may not push to may be another's, and its layers are too.
        for image in filter(None, (*request.cache_from, request.cache_to)):
            self.check_destination(ImageReference.parse(image))
        most = self.least("max_seconds")
        if most is not None and (request.timeout or 0) > most:
            raise self._denied("max_seconds", f"{request.timeout:.0f} seconds")

    def check_destination(self, repository: ImageReference) -> None:
        """Raise `PermissionDenied` if no image may go to the repository."""
        self._check("destinations", *_spellings(repository))

    def check_source(self, place: str) -> None:
        """Raise `PermissionDenied` if nothing at the place (`Source.place`) may be built."""
        self._check("sources", place, place.removesuffix(".git"))

    def check_dockerfile(self, text: str, build_args: Mapping[str, str]) -> None:
        """Raise `PermissionDenied` if a build by the Dockerfile could fetch an image that is not
        allowed.
        """
        if self.limits_images:
            for image in sorted(images(text, build_args)):
                try:
                    names = _spellings(ImageReference.parse(image))
                except UserError:  # a variable, say: only a rule for anything allows it
                    names = [image]
                self._check("base_images", *names)

    @property
    def of_sources(self) -> str:
        """A word for the rules about sources: the same where they are the same, empty where there
        are none.
        """
        lists = [rules.sources for _, rules in self.rules if rules.sources is not None]
        return hashlib.sha256(repr(lists).encode()).hexdigest()[:16] if lists else ""

    def least(self, limit: str) -> int | None:
        """Return the least of the numbers that the rules give for a limit; None if none does."""
        numbers = [getattr(rules, limit) for _, rules in self.rules]
        return min((number for number in numbers if number is not None), default=None)

    def check_day(self, builds: int) -> None:
        """Raise `PermissionDenied` if that many builds are more than a tenant has in a day."""
        most = self.least("daily_builds")
        if most is not None and builds > most:
            raise self._denied("daily_builds", "more builds today")

    def _check(self, key: str, *spellings: str) -> None:
        """Raise if there are rules that allow none of the spellings of one thing."""
        for name, rules in self.rules:
            if not any(allows(getattr(rules, key), each) for each in spellings):
                raise _denial(name, key, rules, spellings[0])

    def _denied(self, key: str, value: str) -> PermissionDenied:
        name, rules = next(
            (name, rules) for name, rules in self.rules if getattr(rules, key) == self.least(key)
        )
        return _denial(name, key, rules, value)


def _rules(policy: Policy, tenant: str | None) -> Iterator[tuple[str, Rules]]:
    yield "policy", policy
    if policy.tenants is None:
        return
    if tenant not in policy.tenants:
        who = f"The tenant {tenant}" if tenant else "A request that no tenant has signed"
        raise PermissionDenied(
            f"{who} is not served here: the policy has tenants",
            "sign the request (Client(tenant=…, key=…)), or have the operator add the tenant to policy.tenants",
            "policy.tenants",
            tenant or "",
        )
    yield f"policy.tenants.{tenant}", policy.tenants[tenant]


def _denial(name: str, key: str, rules: Rules, value: str) -> PermissionDenied:
    rule, found = f"{name}.{key.replace('_', '-')}", getattr(rules, key)
    allowed = ", ".join(found) if isinstance(found, tuple) else str(found)
    return PermissionDenied(
        f"The rule {rule} of the launch config does not allow {one_line(value, _SHOWN)}",
        f"it allows {allowed or 'nothing'}; have the operator add to it",
        rule,
        one_line(value, _SHOWN),
    )


def _spellings(image: ImageReference) -> list[str]:
    """Return an image in full, without tag and digest, and, on Docker Hub, in short, as people write it:
    each of them stands for the same. Beside a digest the tag means nothing, so no rule goes by it.
    """
    if image.digest is not None:
        image = ImageReference(image.registry, image.path, digest=image.digest)
    spellings = [str(image), image.repository]
    hub = f"{DOCKER_HUB}/"
    short = [text.removeprefix(hub) for text in spellings if text.startswith(hub)]
    return [*spellings, *short, *(text.removeprefix("library/") for text in short)]
