"""What all sections of a launch config share."""

import re
from collections.abc import Mapping

from pydantic import VERSION, BaseModel, BeforeValidator, ConfigDict, model_validator

from imagemill.config.faults import Fault, fault_error, mismatch

BUILT_LATE = tuple(map(int, VERSION.split(".")[:2])) >= (2, 14)
"""Whether a model is built when it is first used, so that a command builds those alone that it
needs; before pydantic 2.14 two threads must not be the first at once
(https://github.com/pydantic/pydantic/pull/13438).
"""


class Section(BaseModel):
    """A section: frozen, strict about keys, hyphens and underscores in keys the same."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        defer_build=BUILT_LATE,
    )

    @model_validator(mode="before")
    @classmethod
    def _normalised(cls, data: object) -> object:
        """Keys with underscores; a key without a value (`null`, or empty text) is as good as
        absent.
        """
        if not isinstance(data, Mapping):
            return data
        given = {key: value for key, value in data.items() if value not in (None, "")}
        normalised = {str(key).replace("-", "_"): value for key, value in given.items()}
        if len(normalised) < len(given):
            raise fault_error(
                Fault((), "found a key in both spellings, with '-' and '_', expected it once")
            )
        return normalised


def whole_number(digits: int, expected: str) -> BeforeValidator:
    """Return the validator of a number of so many digits at most, which is text in a file's document,
    and a number in a message; `expected` says in words what it is.
    """

    def check(value: object) -> int:
        if re.fullmatch(rf"[0-9]{{1,{digits}}}", str(value), re.ASCII):
            return int(str(value))
        raise mismatch(value, expected)

    return BeforeValidator(check)
