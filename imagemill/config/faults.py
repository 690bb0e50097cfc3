"""What is wrong with a launch config, in words that name the key, what was found and what was
expected.

Validators raise these; `imagemill.config.loading` adds the file and the line. A value is repeated
only if it can hold no secret: messages end up in logs, and what is pasted into a config file is not
always what belongs there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import PydanticCustomError

KeyPath = tuple[str | int, ...]
"""Where a value is in a document: keys, with underscores except within `kaniko-config`, and
indices.
"""

FREE = ("builder", "kaniko_config")
"""Below this a document is a Kubernetes Job: its keys are Kubernetes' own, taken as they are."""

AGENT_KEYS = (
    "entity",
    "max_jobs",
    "max_schedulers",
    "queues",
    "secure_mode",
    "stopped_run_timeout",
    "verbosity",
)
"""Top-level keys that only the W&B agent reads: accepted and ignored."""

_HARMLESS = re.compile(r"[\w./:<>|+ -]{0,80}", re.ASCII)
_KINDS: dict[type, str] = {
    dict: "a mapping",
    list: "a list",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "nothing",
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    path: KeyPath
    message: str
    """What was found, and what was expected."""
    hint: str = ""

    def below(self, path: KeyPath) -> "Fault":
        """Return the same fault, seen from further up in the document."""
        return replace(self, path=path + self.path)


def fault_error(*faults: Fault) -> PydanticCustomError:
    """Return what a validator raises. The faults' paths begin at the field or model that is
    validated.
    """
    context: dict[str, Any] = {
        "message": "; ".join(fault.message for fault in faults),
        "faults": faults,
    }
    return PydanticCustomError("launch_config", "{message}", context)


def mismatch(value: object, expected: str, hint: str = "") -> PydanticCustomError:
    """Return what a validator of one value raises when it is not what was expected."""
    return fault_error(Fault((), f"found {shown(value)}, expected {expected}", hint))


def shown(value: object) -> str:
    """Return a found value, if it is short and can hold no secret; else the kind of value that it
    is.
    """
    if isinstance(value, str):
        return f'"{value}"' if _HARMLESS.fullmatch(value) else "a value that is not shown here"
    return _KINDS.get(type(value), "another kind of value")


def dotted(path: KeyPath, written: Mapping[KeyPath, str] | None = None) -> str:
    """Return the path in one line: `builder.kaniko-config.spec.containers[0]`.

    `written` has the keys in the document's own spelling; other keys get hyphens, as in the
    documentation.
    """
    text = ""
    for end, step in enumerate(path, start=1):
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{(written or {}).get(path[:end], step.replace('_', '-'))}"
    return text.removeprefix(".") or "the document"
