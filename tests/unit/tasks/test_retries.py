"""How long a step waits before it is tried again."""

import pytest

from imagemill.errors import ServiceUnreachable, TransientError
from tasks.retries import FOR_A_TRY, QUICKLY, pause
from tasks.settings import Setup

SERVICE = Setup(backend="redis://")
TERMINAL = Setup(backend="redis://", attended=True)
AWAY = ServiceUnreachable("away", refused=True)
FAILING = ServiceUnreachable("answers 503")
ODD = TransientError("odd")


def wait(
    error: TransientError, tried: int, setup: Setup = SERVICE, took: float = 0, left: float = 1800
) -> float | None:
    return pause(error, tried, setup, took=took, remaining=left)


def test_pauses_grow_to_the_longest() -> None:
    for tried in range(100):
        longest = min(30, 2**tried)
        found = wait(AWAY, tried)
        assert found is not None
        assert longest / 2 <= found <= longest


@pytest.mark.parametrize("error", [AWAY, FAILING])
def test_server_that_is_away_is_waited_for_until_the_deadline(error: TransientError) -> None:
    waited, tried = 0.0, 0
    while (found := wait(error, tried, left=1800 - waited)) is not None:
        waited, tried = waited + found, tried + 1
    assert 1790 < waited < 1800
    assert tried < 200


@pytest.mark.parametrize("took", [0, 3])
def test_a_try_is_left_as_long_as_the_last_one_took(took: float) -> None:
    needed = max(FOR_A_TRY, took)
    assert wait(AWAY, 5, left=needed + 2, took=took) == 2
    assert wait(AWAY, 5, left=needed, took=took) is None
    told = ServiceUnreachable("busy", "", 2)
    assert wait(told, 0, left=needed + 2.5, took=took) == 2
    assert wait(told, 0, left=needed + 1.5, took=took) is None


def test_what_takes_long_each_time_is_tried_a_few_times_only() -> None:
    assert wait(FAILING, 4, took=QUICKLY + 1) is not None
    assert wait(FAILING, 5, took=QUICKLY + 1) is None


def test_other_errors_are_tried_a_few_times() -> None:
    assert wait(ODD, 4) is not None
    assert wait(ODD, 5) is None


def test_what_was_tried_often_below_is_not_tried_again() -> None:
    assert wait(ServiceUnreachable("away", exhausted=True), 0) is None


def test_person_is_told_after_one_more_try_of_what_is_refused() -> None:
    assert wait(AWAY, 0, TERMINAL) is not None
    assert wait(AWAY, 1, TERMINAL) is None
    assert wait(FAILING, 4, TERMINAL) is not None
    assert wait(FAILING, 5, TERMINAL) is None
    assert wait(AWAY, 0, Setup(backend="redis://", attended=True, max_retries=0)) is None


def test_server_that_says_when_is_asked_then() -> None:
    told = ServiceUnreachable("busy", "", 17)
    assert wait(told, 20) == 17
    assert wait(told, 0, left=16) is None
