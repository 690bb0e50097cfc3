"""The page of what was broken: a run writes its own part, and leaves the others."""

from chaos.history import Answered, Broken, Event, Left, Reported, Stored, Submitted
from chaos.matrix import Cell, Outcome
from chaos.page import Run, written

DIGEST = f"sha256:{'a' * 64}"
GOOD: list[Event] = [
    Submitted(1, "one", "app"),
    Broken(2, "kill_tree", "light"),
    Reported(5.5, "one", "succeeded", DIGEST),
    Answered(6, "one", "SUCCESS"),
    Stored(7, DIGEST),
]


def rows(page: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith(("| storm", "| matrix"))]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_a_run_is_a_row_of_counts() -> None:
    (row,) = rows(written("", Run("storm", "docker", "redis", [*GOOD, Left(9, "tag", "a:b")])))
    assert row[:3] == ["storm", "docker", "redis"]
    assert row[4:-1] == ["1", "0", "0", "0", "0", "0", "0", "0", "1", "3.5 s"]


def test_a_run_takes_the_place_of_the_last_one_of_its_kind() -> None:
    page = written("", Run("storm", "docker", "redis", GOOD[:2]))
    page = written(page, Run("storm", "kaniko", "redis", GOOD))
    page = written(page, Run("storm", "docker", "redis", GOOD))
    assert [[row[1], row[5]] for row in rows(page)] == [["docker", "0"], ["kaniko", "0"]]


def test_a_matrix_has_a_table_of_its_cells() -> None:
    bad, good = Cell("build", "mid", "term"), Cell("verify", "mid", "quit")
    outcomes = [Outcome(bad, 1, ("lost",)), Outcome(good, 1, ()), Outcome(bad, 0, ("again",))]
    run = Run("matrix", "docker", "redis", GOOD, outcomes, seed=3)
    page = written(written("", run), Run("storm", "docker", "redis", GOOD))
    assert "2 of" in page
    assert "chosen by seed 3" in page
    (build,) = [line for line in page.splitlines() if line.startswith("| build/mid")]
    assert build.count("lost; again") == 1
    (verify,) = [line for line in page.splitlines() if line.startswith("| verify/mid")]
    assert verify.count("ok") == 1
    assert written(page, run) == page
    assert len(rows(page)) == 2
