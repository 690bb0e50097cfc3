"""The checker of histories: it passes a good one, and finds each thing that can be wrong."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from chaos.history import (
    Answered,
    Broken,
    Building,
    Died,
    Event,
    Left,
    Reported,
    Stored,
    Submitted,
    load,
    save,
    violations,
)

DIGEST = f"sha256:{'a' * 64}"

GOOD: tuple[Event, ...] = (
    Submitted(1, "one", "registry/app:1"),
    Submitted(1, "two", "registry/app:1"),
    Submitted(1, "bad", "registry/app:2", expected="failed"),
    Building(2, (("registry/app:1", "10"), ("registry/app:2", "11"))),
    Broken(3, "kill", "light"),
    Building(4, (("registry/app:1", "12"),)),
    Reported(5, "one", "succeeded", DIGEST),
    Reported(5, "two", "succeeded", DIGEST),
    Reported(5, "bad", "failed", error="no such file"),
    Answered(6, "one", "SUCCESS"),
    Answered(6, "two", "SUCCESS"),
    Answered(6, "bad", "FAILURE"),
    Stored(7, DIGEST),
)


def without(kind: type[Event], build: str) -> list[Event]:
    return [
        event
        for event in GOOD
        if not (isinstance(event, kind) and getattr(event, "build", None) == build)
    ]


def changed(index: int, **fields: object) -> list[Event]:
    history = list(GOOD)
    history[index] = dataclasses.replace(history[index], **fields)  # type: ignore[arg-type]
    return history


def test_a_good_history_has_nothing_wrong() -> None:
    assert violations(GOOD, late=2) == []


@pytest.mark.parametrize(
    ("history", "said"),
    [
        (without(Reported, "one"), "lost: one has no report"),
        ([*GOOD, Reported(8, "one", "succeeded", DIGEST)], "2 reports: succeeded, succeeded"),
        ([*GOOD, Reported(8, "one", "failed")], "2 reports: succeeded, failed"),
        (changed(6, status="failed", error="why"), "one failed in place of succeeded: why"),
        ([*GOOD, Reported(8, "odd", "succeeded", DIGEST)], "odd was reported, and nobody"),
        (changed(9, state="REPORTING"), "stays REPORTING: its caller hangs"),
        (changed(9, state="FAILURE"), "one succeeded, and its Celery result is FAILURE"),
        (changed(11, state="SUCCESS"), "bad failed, and its Celery result is SUCCESS"),
        (changed(12, digest="sha256:other"), "which the registry does not have"),
        (
            changed(5, builders=(("registry/app:1", "12"), ("registry/app:1", "13"))),
            "registry/app:1 was built by 12 and 13 at the same time",
        ),
        ([*GOOD, Left(9, "lock", "registry/app:1")], "left over: lock registry/app:1"),
        ([*GOOD, Died(9, "light", 1)], "the worker light, which nobody had touched, ended with 1"),
        (changed(8, at=60), "57.0 s after the last fault"),
    ],
)
def test_what_is_wrong_is_found(history: Sequence[Event], said: str) -> None:
    assert any(said in line for line in violations(history, late=2)), violations(history, late=2)


def test_the_same_pair_of_builders_is_told_once() -> None:
    pair = (("registry/app:1", "12"), ("registry/app:1", "13"))
    history = [*GOOD, Building(4.1, pair), Building(4.2, pair)]
    assert len(violations(history)) == 1


def test_a_history_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    history = [*GOOD, Left(9, "lock", "registry/app:1"), Died(9, "light", 1)]
    save(history, tmp_path / "history.jsonl")
    assert load(tmp_path / "history.jsonl") == history
