"""A few cells of the matrix and a short storm, by seed; `make chaos` runs all of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import matrix, storm
from chaos.site import Site, site


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        made.start()
        yield made


def test_a_share_of_the_matrix_breaks_no_promise(running: Site) -> None:
    outcomes = list(matrix.run(running, matrix.cells(share=0.012, seed=3)))
    assert [each for each in outcomes if each.wrong] == []


def test_a_storm_loses_no_build(running: Site) -> None:
    assert storm.run(running, storm.Storm(seconds=15, rate=3, sources=6, seed=3)) == []
