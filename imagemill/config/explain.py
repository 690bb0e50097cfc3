"""Pydantic's errors in the launch config's own words, with the known key that is nearest to an
unknown one.
"""

import re
from collections.abc import Iterator
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from imagemill.config.faults import AGENT_KEYS, Fault, KeyPath, dotted, shown
from imagemill.config.model import Section
from imagemill.config.policy import Policy
from imagemill.config.registry_section import VARIANTS

KNOWN: dict[str, list[str]] = {"": [*VARIANTS, "policy", *AGENT_KEYS]} | {
    section: sorted({key for cls in classes for key in cls.model_fields})
    for section, classes in VARIANTS.items()
}
"""Section → its keys; the top level is ''."""
KNOWN["builder"].append("uri")
KNOWN["policy"] = sorted(Policy.model_fields)

_ALIKE = 0.75
"""How alike a key must be to be meant: names of two words often have one of them in common."""


def explain(error: ValidationError) -> Iterator[Fault]:
    """All that is wrong, one by one."""
    for details in error.errors(include_url=False):
        yield from _faults(details)


def _faults(details: ErrorDetails) -> Iterator[Fault]:
    path, variant = _place(details["loc"])
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    match kind:
        case "launch_config":
            yield from (fault.below(path) for fault in context["faults"])
        case "extra_forbidden":
            yield _unknown(path)
        case "missing":
            yield Fault(
                path, f"found nothing, expected {_meaning(path, variant)}", f"add {dotted(path)}"
            )
        case "union_tag_invalid":
            expected = _alternatives(context["expected_tags"])
            given = value["type"] if isinstance(value["type"], str) else ""
            near = get_close_matches(given, re.split(r", | or ", expected), n=1)
            hint = f"did you mean {near[0]}?" if near else ""
            yield Fault((*path, "type"), f"found {shown(value['type'])}, expected {expected}", hint)
            # Which keys are right depends on the type; one that no type knows is wrong anyway.
            for key in value.keys() - {*KNOWN[str(path[0])], "type"}:
                yield _unknown((*path, key))
        case "literal_error":
            yield Fault(
                path, f"found {shown(value)}, expected {_alternatives(context['expected'])}"
            )
        case "string_type" | "string_unicode":
            yield Fault(path, f"found {shown(value)}, expected {_meaning(path, variant)}")
        case "model_attributes_type" | "model_type" | "dict_type":
            yield Fault(path, f"found {shown(value)}, expected a mapping")
        case "list_type" | "tuple_type":
            yield Fault(path, f"found {shown(value)}, expected a list")
        case _:
            yield Fault(path, f"found {shown(value)}, expected another value: {details['msg']}")


def _unknown(path: KeyPath) -> Fault:
    return Fault(path, "found an unknown key, expected a known one", _nearest(path))


def _place(loc: tuple[str | int, ...]) -> tuple[KeyPath, type[Section] | None]:
    """Path and variant; pydantic puts the variant's type behind the section's name."""
    section, *rest = loc
    for cls in VARIANTS.get(str(section), ()):
        if rest and rest[0] == cls.model_fields["type"].default:
            return (section, *rest[1:]), cls
    return loc, None


def _meaning(path: KeyPath, variant: type[Section] | None) -> str:
    field = variant.model_fields.get(str(path[-1])) if variant else None
    return (field and field.description) or "text"


def _alternatives(quoted: str) -> str:
    """Return `'a', 'b' or 'c'`, as pydantic has it, without the quotes."""
    *others, last = re.findall(r"'([^']*)'", quoted)
    return f"{', '.join(others)} or {last}"


def _nearest(path: KeyPath) -> str:
    """Return a known key that may have been meant: of another section the same, else of this one a
    longer or similar one.
    """
    section, key = str(path[0]) if len(path) > 1 else "", str(path[-1])
    for other in ("builder", "environment"):
        if other != section and key in KNOWN[other] and key != "type":
            return f"did you mean {dotted((other, key))}?"
    longer = [other for other in KNOWN[section] if key in other]
    alike = get_close_matches(key, KNOWN[section], n=1, cutoff=_ALIKE)
    if near := longer or alike:
        return f"did you mean {' or '.join(dotted((*path[:-1], key)) for key in near)}?"
    known = ", ".join(key.replace("_", "-") for key in KNOWN[section])
    return f"known keys{f' of {section}' if section else ''}: {known}"
