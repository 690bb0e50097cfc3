"""Figures are told as they are measured, and a bound counts within the spread of the rounds."""

import pytest

from benchmarks.figures import Figure, Turn, ratio
from benchmarks.run import Target, figure_of


def test_a_ratio_is_that_of_the_medians_with_its_spread() -> None:
    pairs = [(Turn(1, 2), Turn(2, 1)), (Turn(3, 2), Turn(2, 1)), (Turn(2, 2), Turn(1, 1))]
    assert ratio(pairs) == Figure(1.0, 0.5, 2.0, 2.0)


@pytest.mark.parametrize(
    ("target", "figure", "met"),
    [
        (Target("", at_most=1), Figure(1.1, 0.9, 1.3), True),
        (Target("", at_most=1), Figure(1.2, 1.1, 1.3), False),
        (Target("", at_least=1), Figure(0.9, 0.8, 1.0), True),
        (Target("", at_least=1), Figure(0.9, 0.8, 0.95), False),
        (Target(""), Figure(1, 1, 1), True),
    ],
)
def test_a_bound_that_is_met_within_the_spread_is_met(
    target: Target, figure: Figure, met: bool
) -> None:
    assert target.met(figure) == met


def test_a_plain_number_is_a_figure_without_a_spread() -> None:
    assert figure_of(2.0) == Figure(2.0, 2.0, 2.0)
    assert figure_of({"value": 1, "low": 0.5, "high": 2, "cpu": None}) == Figure(1, 0.5, 2)
