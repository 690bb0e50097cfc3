"""Why the builder has to build, as it is told."""

from imagemill.builders.graft import Refusal
from imagemill.messages import BuildReport


def test_a_name_that_is_no_text_can_be_reported() -> None:
    reason = Refusal("/app/\udcff is no folder, nor is \ud800").reason
    assert reason == r"/app/\udcff is no folder, nor is \ud800"
    report = BuildReport(id="1", status="succeeded", seconds=1, not_grafted=reason)
    assert "no folder" in report.model_dump_json()
