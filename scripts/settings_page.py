"""Writes docs/settings.md from the settings' own descriptions: `make schemas`."""

from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from imagemill.settings import variables_of
from imagemill.sources.options import VARIABLES
from worker.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"

_HEAD = """# Settings of a worker

Each is a variable of the worker's environment; an empty one is one that is not set. A value that cannot be read ends
the worker at its start, with a line that says why, and a variable that nothing reads is named in its log with the
nearest that something does. Sizes may have units (`10GiB`, `500MB`). The command line takes from the same variables
what is about its own machine.

`rediss://` means TLS with a certificate that the system's authorities have signed, or those in a file:
`rediss://HOST:6380/0?ssl_ca_certs=/etc/ssl/redis.pem`. Broker and results are one Redis each: Sentinel and Cluster are
refused. In a password, `/ @ # ? % [ ]` are percent-encoded.

| variable | default | meaning |
| --- | --- | --- |
"""


def page() -> str:
    """Return the page."""
    fields = variables_of(Settings)
    rows = [_row(name, *_described(Settings.model_fields[field])) for name, field in fields.items()]
    rows += [_row(name, *_parted(variable.description)) for name, variable in VARIABLES.items()]
    return _HEAD + "".join(sorted(rows, key=_order))


def _order(row: str) -> tuple[bool, str]:
    """The broker first, since it is required."""
    return ("| required |" not in row, row)


def _row(name: str, meaning: str, default: str) -> str:
    return f"| `{name}` | {default} | {meaning} |\n"


def _described(field: FieldInfo) -> tuple[str, str]:
    meaning, default = _parted(field.description or "")
    return meaning, default or ("required" if field.is_required() else _shown(field.default))


def _parted(text: str) -> tuple[str, str]:
    """The meaning, and the default where the description says it in words."""
    meaning, _, default = text.partition("; default: ")
    return meaning, default


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value >= 1 << 30:
        return f"{value >> 30} GiB"
    return f"`{value:g}`" if isinstance(value, float | int) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page())
