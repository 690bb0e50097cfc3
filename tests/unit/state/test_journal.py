"""What the journal makes of its entries; fakeredis serves for logic that no server is needed
for.
"""

import fakeredis

from imagemill.messages import BuildReport, State
from imagemill.state.journal import Journal


def journal() -> Journal:
    return Journal(fakeredis.FakeRedis(), "p:", str.encode)


def test_the_last_lines_are_the_newest_oldest_first() -> None:
    records = journal()
    records.enter("b", State.BUILDING, 1.0)
    records.log("b", [str(number) for number in range(50)])
    records.enter("b", State.PUSHING, 2.0)

    assert records.last_lines("b", 3) == ("47", "48", "49")


def test_a_report_is_found_behind_later_events() -> None:
    records = journal()
    report = BuildReport(id="b", status="cancelled")
    assert records.report("b") is None
    records.end("b", report)
    records.log("b", ["a straggler"])

    assert records.report("b") == report


def test_the_first_report_stands() -> None:
    records = journal()
    first = BuildReport(id="b", status="succeeded")

    assert records.end("b", first) == first
    assert records.end("b", BuildReport(id="b", status="failed")) == first
    assert [event.report for event in records.events("b")] == [first]


def test_builds_do_not_see_each_other() -> None:
    records = journal()
    records.log("a", ["of a"])
    records.ask_to_cancel("a")

    assert records.last_lines("b") == ()
    assert not records.is_cancelled("b")
