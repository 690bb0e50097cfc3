"""How long a build waits for another one of its image before it looks again."""

import pytest

from tasks.check_registry import pause


@pytest.mark.parametrize(
    ("waited", "expected"), [(0, 5), (4, 5), (10, 10), (29, 29), (31, 30), (9000, 30)]
)
def test_it_looks_ever_more_seldom_yet_within_a_lease(waited: float, expected: float) -> None:
    assert pause(waited, interval=5, lease=30) == expected


def test_it_never_looks_more_often_than_it_is_told_to() -> None:
    assert pause(100, interval=600, lease=30) == 600
