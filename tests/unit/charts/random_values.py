"""Values at random that a JSON schema allows; where it gives examples, one of those."""

from collections.abc import Mapping
from random import Random
from typing import Any

Schema = Mapping[str, Any]


class Values:
    """Makes values for the parts of one schema; the same for the same seed."""

    def __init__(self, schema: Schema, seed: int) -> None:
        self._schema, self._random = schema, Random(seed)

    def make(self) -> Any:
        """Return values that the whole schema allows."""
        return self._of(self._schema)

    def _of(self, schema: Schema) -> Any:
        if reference := schema.get("$ref"):
            return self._of(self._schema["$defs"][reference.removeprefix("#/$defs/")])
        if examples := schema.get("examples"):
            return self._random.choice(examples)
        if choices := schema.get("enum"):
            return self._random.choice(choices)
        match schema["type"]:
            case "object":
                return self._object(schema)
            case "boolean":
                return self._random.random() < 0.5
            case "integer":
                low, high = schema["minimum"], schema["maximum"]
                return self._random.choice((low, high, self._random.randint(low, high)))
        raise AssertionError(f"the schema gives no example of {schema}")

    def _object(self, schema: Schema) -> dict[str, Any]:
        """Each key about every other time."""
        keys = [key for key in schema["properties"] if self._random.random() < 0.5]
        return {key: self._of(schema["properties"][key]) for key in keys}
