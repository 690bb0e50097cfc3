"""What a W&B agent's config file may hold besides the keys of today, brought into their form.

`builder.uri` and the `registry` section are other ways to say `builder.destination`; `queues` and
the like belong to the agent; and a section may hold keys that only another `type` of it reads. Only
files may say such things: the model in `imagemill.config.model` does not know them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from imagemill.config.explain import explain
from imagemill.config.faults import AGENT_KEYS, Fault, KeyPath, dotted, shown
from imagemill.config.registry_section import VARIANTS, Registry, RegistrySection
from imagemill.errors import UserError
from imagemill.reference import ImageReference

DESTINATION = ("builder", "destination")

_SHARED = {("ecr", "aws"): ("region",), ("gcr", "gcp"): ("region", "project")}
"""Types of the registry and of the environment → the keys that the registry takes from the
environment.
"""


def rewrite(data: dict[str, Any]) -> "Rewritten":
    """Bring a document's content into today's form, as far as it is right."""
    rewritten = Rewritten(data)
    rewritten.drop_agent_keys()
    for section in VARIANTS:
        rewritten.drop_unused(section)
    rewritten.settle_destination(rewritten.take_registry())
    return rewritten


@dataclass
class Rewritten:
    """A document's content in today's form."""

    data: dict[str, Any]
    warnings: list[tuple[KeyPath, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    destination: KeyPath = DESTINATION
    """Where `builder.destination` was taken from."""

    def drop_agent_keys(self) -> None:
        found = [key for key in AGENT_KEYS if self.data.pop(key, None) is not None]
        if found:
            names = ", ".join(found)
            self.warnings.append(
                ((found[0],), f"the W&B agent's own keys are not used here: {names}")
            )

    def drop_unused(self, section: str) -> None:
        """Leave out keys that only another `type` of the section reads; say so."""
        content = self.data.get(section)
        if not isinstance(content, dict):
            return
        variants = {cls.model_fields["type"].default: cls for cls in VARIANTS[section]}
        chosen = content.get("type") or next(iter(variants))
        if not isinstance(chosen, str) or chosen not in variants:
            return
        others = {key for cls in variants.values() for key in cls.model_fields} - set(
            variants[chosen].model_fields
        )
        for key in sorted(others & content.keys()):
            if content.pop(key) not in (None, ""):
                self.warnings.append(((section, key), f"not used with {section}.type {chosen}"))

    def take_registry(self) -> Registry | None:
        """Return the `registry` section, out of the document."""
        section = self.data.pop("registry", None)
        if section is None or (isinstance(section, dict) and _is_empty(section)):
            return None
        if isinstance(section, dict) and section.get("type") == "ecr" and "repo_name" in section:
            section = {"repository": section.pop("repo_name"), **section}
            self.warnings.append(
                (("registry", "repo_name"), "an older spelling of registry.repository")
            )
        try:
            return RegistrySection.model_validate(
                {"registry": self._with_environment(section)}
            ).registry
        except ValidationError as error:
            self.faults.extend(explain(error))
            return None

    def _with_environment(self, registry: Any) -> Any:
        """Return the section with region and project of the `environment` where it leaves them out."""
        environment = self.data.get("environment")
        if not isinstance(registry, dict) or not isinstance(environment, dict):
            return registry
        keys = _SHARED.get((str(registry.get("type")), str(environment.get("type"))), ())
        return {key: environment[key] for key in keys if key in environment} | registry

    def settle_destination(self, registry: Registry | None) -> None:
        """Make one `builder.destination` of all that name one."""
        builder = self.data.setdefault("builder", {})
        if builder is None:
            builder = self.data["builder"] = {}
        if not isinstance(builder, dict):
            return
        ways = list(_destinations(builder, registry))
        builder.pop("uri", None)
        if ways:
            (self.destination, builder["destination"]), *others = ways
            self.faults += _conflicts(self.destination, builder["destination"], others)
        if not registry:
            return
        if ways:
            text = f"an older way to say builder.destination; write builder.destination: {builder['destination']}"
            self.warnings.append((("registry",), text))
        else:
            self.faults.append(
                Fault(("registry",), f"found no image repository, expected {registry.missing}")
            )


def _is_empty(section: dict[str, Any]) -> bool:
    """Whether no key has a value."""
    return all(value in (None, "") for value in section.values())


def _destinations(
    builder: dict[str, Any], registry: Registry | None
) -> Iterator[tuple[KeyPath, Any]]:
    """All repositories that the document names, and where."""
    for key in ("destination", "uri"):
        if builder.get(key) is not None:
            yield ("builder", key), builder[key]
    if registry and registry.uri is not None:
        yield ("registry", "uri"), registry.uri
    if registry and (destination := registry.spelt_out()):
        yield ("registry",), destination


def _conflicts(
    path: KeyPath, destination: Any, others: list[tuple[KeyPath, Any]]
) -> Iterator[Fault]:
    for other, value in others:
        if _in_full(value) != _in_full(destination):
            message = (
                f"found {shown(value)}, expected the same as {dotted(path)}, {shown(destination)}"
            )
            yield Fault(other, message, "give one of them only")


def _in_full(destination: Any) -> Any:
    """One text for all spellings of a repository; what is none, as it is."""
    if not isinstance(destination, str):
        return destination
    try:
        return str(ImageReference.parse_destination(destination))
    except UserError:
        return destination
