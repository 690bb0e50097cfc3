"""What a build will do, told before."""

import hashlib
from typing import Any

import pytest

from imagemill.builders.graft import Refusal
from imagemill.builders.graft.planning import Known, Plan, Wanted, plan
from imagemill.context import Entry, Manifest
from imagemill.context.manifest import Dockerfile
from imagemill.dockerfile.cache_keys import keyed

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


def planned(dockerfile: str, known: Known, **options: Any) -> Plan:
    content = dockerfile.encode()
    sha256 = hashlib.sha256(content).hexdigest()
    manifest = Manifest(Dockerfile("Dockerfile", sha256, content), ENTRIES)
    return plan(Wanted(manifest, **options), known)


def keys(dockerfile: str, **options: Any) -> list[str]:
    return [each.key for each in keyed(dockerfile, options.pop("build_args", {}), **options)]


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


def test_a_label_that_is_gone_counts_where_the_dockerfile_may_give_it_too() -> None:
    known = Known({b"app/serve.py"}, gone=("version",))
    assert planned(GOOD, known).way == "code"
    found = planned(f"{GOOD}LABEL version=1\n", known)
    assert found.way == "builder"
    assert "label version" in found.why


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


@pytest.mark.parametrize(
    "dockerfile", ["COPY a /\n", "FROM a\nRUNN b\n", "FROM a\nCOPY app/gone.py lock.txt /b/\n"]
)
def test_what_is_bound_to_fail_is_refused(dockerfile: str) -> None:
    with pytest.raises(Refusal):
        planned(dockerfile, Known({b"app"}))


def test_a_base_image_by_an_argument_is_no_error() -> None:
    dockerfile = "ARG V\nFROM a:$V\nCOPY app /app\n"
    given = {"build_args": {"V": "1"}}
    assert planned(dockerfile, Known({b"app/serve.py"}), **given).way == "code"
    assert planned(dockerfile, Known({b"app/serve.py"})).way == "builder"


LINES = "FROM a\nARG V=1\nCOPY lock.txt /\nRUN b\nENV E=1\nRUN c\nLABEL l=1\nCOPY app /app\nCMD x\n"


@pytest.mark.parametrize(
    ("other", "options", "lines"),
    [
        (LINES.replace("l=1", "l=2").replace("CMD x", "CMD y"), {}, {}),
        (LINES.replace("RUN c", "RUN d"), {}, {6: "why", 8: "after line 6"}),
        (LINES.replace("E=1", "E=2"), {}, {6: "why", 8: "after line 6"}),
        (LINES, {"build_args": {"V": "2"}}, {4: "why", 6: "after line 4", 8: "after line 4"}),
        (LINES, {"build_args": {"W": "2"}}, {}),
        (LINES, {"digests": {"a": "sha256:1"}}, {3: "why", 4: "after line 3", 6: "after line 3"}),
        (LINES, {"platform": "p"}, {3: "why", 4: "after line 3", 6: "after line 3"}),
        (f"{LINES}RUN <<E\none\nE\n", {}, {10: "why"}),
    ],
)
def test_what_differs_runs_what_it_is_for_and_all_after_it(
    other: str, options: dict[str, Any], lines: dict[int, str]
) -> None:
    known = Known(others=("why",), keys=keys(f"{LINES}RUN <<E\ntwo\nE\n"))
    found = again(planned(other, known, **options))
    assert {line: found.get(line) for line in lines} == lines
    assert not found.keys() - lines.keys() - {8}


def test_stages_that_the_target_does_not_need_are_not_run() -> None:
    found = planned(GOOD, Known({b"lock.txt"}), target="b")
    assert again(found) == {2: "lock.txt", 3: "after line 2"}
    assert len(found.steps) == 2


@pytest.mark.parametrize(
    ("dockerfile", "moved"),
    [
        ("FROM a\nCOPY app /app\nRUN b\nCOPY lock.txt /\n", "line 3 (RUN) before line 2"),
        ("FROM a\nCOPY . .\nENV A=b\nRUN c\n", "line 2 (COPY . .), with what they need of line 3"),
        ("FROM a\nCOPY app/serve.py /\nRUN b\nCOPY . .\n", None),
        ("FROM a\nCOPY app/serve.py /\nRUN b\n", "line 3 (RUN) before line 2"),
        ("FROM a\nCOPY --link . .\n", None),
    ],
)
def test_what_is_in_the_way_of_a_change_of_code_is_told(dockerfile: str, moved: str | None) -> None:
    found = planned(dockerfile, Known({b"app/serve.py"}))
    assert found.way == "builder"
    assert found.move is None if moved is None else moved in str(found.move)


@pytest.mark.parametrize(
    ("dockerfile", "moved"),
    [
        ("FROM a\nCOPY app /r\nRUN b\nCOPY . .\n", None),
        (
            "FROM a\nCOPY app /r\nRUN b\nCOPY . .\nRUN c\nUSER d\n",
            "move line 5 (RUN) before line 4",
        ),
    ],
)
def test_before_a_first_build_only_what_is_in_the_way_is_told(
    dockerfile: str, moved: str | None
) -> None:
    found = planned(dockerfile, Known(others=("no earlier image is known",)))
    assert found.move is None if moved is None else moved in str(found.move)
    assert "USER" not in str(found.move)


def test_where_the_image_is_not_there_something_is_to_be_done() -> None:
    assert planned(GOOD, Known(same=False)).way == "code"
