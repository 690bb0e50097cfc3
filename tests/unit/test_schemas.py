"""The JSON Schemas in docs/schema are those of the models."""

import json

import jsonschema
import pytest

import schemas
from imagemill.messages import BuildReport, BuildRequest, Failure, State, StepTime


@pytest.mark.parametrize("name", ["build-request.json", "build-report.json"])
def test_the_schemas_are_up_to_date(name: str) -> None:
    assert (schemas.FOLDER / name).read_text() == schemas.schemas()[name], "run make schemas"


def test_messages_fit_their_schemas() -> None:
    request = BuildRequest(
        source="/src", build_args={"A": "b"}, tags=("v1",), secrets=("npm",), timeout=60
    )
    report = BuildReport(
        id="x",
        status="failed",
        steps=(StepTime(state=State.HASHING, started=1.0, ended=2.0),),
        error=Failure(kind="UserError", message="m", hint="h", state=State.HASHING, log=("line",)),
    )
    for message, name in ((request, "build-request.json"), (report, "build-report.json")):
        jsonschema.validate(message.dump(), json.loads((schemas.FOLDER / name).read_text()))


def test_a_request_with_an_unknown_field_does_not_fit() -> None:
    schema = json.loads((schemas.FOLDER / "build-request.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"source": "/src", "surce": "x"}, schema)
