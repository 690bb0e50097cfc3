"""Writes the JSON Schemas of request and report, for clients that do not use our package: `make
schemas`.
"""

import json
from pathlib import Path

from pydantic import BaseModel

from imagemill.messages import BuildReport, BuildRequest

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FOLDER = Path(__file__).parents[1] / "docs" / "schema"


def schemas() -> dict[str, str]:
    """Name of the file → its content."""
    models: dict[str, type[BaseModel]] = {
        "build-request.json": BuildRequest,
        "build-report.json": BuildReport,
    }
    documents = {
        name: {"$schema": DIALECT, **model.model_json_schema()} for name, model in models.items()
    }
    # A misspelt field of a request is refused; a report may have more fields than a client knows.
    documents["build-request.json"]["additionalProperties"] = False
    return {name: json.dumps(document, indent=2) + "\n" for name, document in documents.items()}


if __name__ == "__main__":
    for name, content in schemas().items():
        (FOLDER / name).write_text(content)
