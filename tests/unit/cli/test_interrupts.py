"""Ctrl-C: what the first does, what the second does, and that none is lost."""

import signal
import sys
import threading

import pytest

from imagemill.cli.interrupts import calling, held, remembered


class Finalised:
    """An object in whose end somebody presses Ctrl-C."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_before_there_is_a_build_ctrl_c_ends_the_command() -> None:
    with remembered(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_the_first_ctrl_c_acts_and_the_second_stops() -> None:
    acted = threading.Event()
    with remembered(), calling(acted.set) as interrupted:
        assert not interrupted.is_set()
        signal.raise_signal(signal.SIGINT)
        assert acted.wait(10)
        assert interrupted.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_ctrl_c_that_python_drops_counts_as_soon_as_there_is_a_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dropped = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda unraisable: dropped.append(unraisable.exc_type)
    )
    acted = threading.Event()
    with remembered():
        Finalised()
        with calling(acted.set) as interrupted:
            assert interrupted.is_set()
            assert acted.wait(10)
    assert dropped == [KeyboardInterrupt]


def test_a_ctrl_c_before_the_build_can_be_cancelled_cancels_it_then() -> None:
    acted = threading.Event()
    with remembered():
        with held():
            signal.raise_signal(signal.SIGINT)
        with calling(acted.set) as interrupted:
            assert interrupted.is_set()
            assert acted.wait(10)


def test_a_command_in_the_background_goes_on_ignoring_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with remembered(), calling(lambda: None) as interrupted:
            signal.raise_signal(signal.SIGINT)
            assert not interrupted.is_set()
    finally:
        signal.signal(signal.SIGINT, before)


def test_afterwards_it_is_as_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with remembered(), calling(lambda: None):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
