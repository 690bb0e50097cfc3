"""What a build will do, told before."""

import hashlib

import pytest

from imagemill.builders.graft import Refusal
from imagemill.builders.graft.planning import Known, Plan, plan
from imagemill.context import Entry, Manifest
from imagemill.context.manifest import Dockerfile

ENTRIES = (
    Entry("dir", b"app"),
    Entry("file", b"app/serve.py", 7, "11"),
    Entry("file", b"lock.txt", 5, "22"),
    Entry("link", b"new", target=b"app"),
)
GOOD = (
    "FROM a AS b\nCOPY lock.txt /\nRUN install\nFROM a\nCOPY --from=b /x /x\nCOPY app /app\nCMD x\n"
)
BAD = "FROM a\nCOPY . .\nENV A=b\nRUN install\n"


def planned(dockerfile: str, known: Known) -> Plan:
    content = dockerfile.encode()
    sha256 = hashlib.sha256(content).hexdigest()
    return plan(Manifest(Dockerfile("Dockerfile", sha256, content), ENTRIES), None, known)


def again(found: Plan) -> dict[int, str]:
    return {step.line: step.because for step in found.steps if step.because}


def test_code_that_the_last_instructions_see_needs_no_builder() -> None:
    found = planned(GOOD, Known({b"app/serve.py"}))
    assert (found.way, found.sent, found.move) == ("code", 7, None)
    assert again(found) == {6: "app/serve.py"}


def test_what_counts_earlier_makes_all_that_stands_on_it_anew() -> None:
    found = planned(GOOD, Known({b"lock.txt", b"app/serve.py"}))
    assert found.way == "builder"
    assert again(found) == {2: "lock.txt", 3: "after line 2", 5: "stage b", 6: "after line 5"}


def test_a_line_that_is_in_the_way_is_to_be_moved() -> None:
    found = planned(BAD, Known({b"app/serve.py"}))
    assert found.way == "builder"
    assert found.move is not None
    assert "line 4 (RUN) before line 2 (COPY . .)" in found.move
    assert again(found) == {2: "app/serve.py", 4: "after line 2"}


def test_what_is_gone_counts_where_it_was() -> None:
    before = (ENTRIES[0], Entry("file", b"app/gone.py", 1, "33"), *ENTRIES[1:])
    assert again(planned(GOOD, Known({b"app/gone.py"}, before=before))) == {6: "app/gone.py"}


def test_what_is_no_file_makes_all_anew_and_nothing_makes_nothing() -> None:
    found = planned(GOOD, Known(others=("another platform",)))
    assert (found.way, found.why) == ("builder", "another platform")
    assert set(again(found)) == {2, 3, 5, 6}
    assert planned(GOOD, Known()).way == "nothing"


def test_a_dockerfile_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(Refusal):
        planned("COPY a /\n", Known({b"app"}))
