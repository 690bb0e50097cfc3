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
    Kind,
    Left,
    Reported,
    Stored,
    Submitted,
    load,
    of_build,
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
    ("history", "kind", "said"),
    [
        (without(Reported, "one"), Kind.LOST, "lost: one has no report"),
        (
            [*GOOD, Reported(8, "one", "succeeded", DIGEST)],
            Kind.TWICE,
            "2 reports: succeeded, succeeded",
        ),
        ([*GOOD, Reported(8, "one", "failed")], Kind.TWICE, "2 reports: succeeded, failed"),
        (
            changed(6, status="failed", error="why"),
            Kind.OTHER,
            "one failed in place of succeeded: why",
        ),
        (
            [*GOOD, Reported(8, "odd", "succeeded", DIGEST)],
            Kind.OTHER,
            "odd was reported, and nobody",
        ),
        (changed(9, state="REPORTING"), Kind.HANGS, "stays REPORTING: its caller hangs"),
        (
            changed(9, state="FAILURE"),
            Kind.OTHER,
            "one succeeded, and its Celery result is FAILURE",
        ),
        (changed(11, state="SUCCESS"), Kind.OTHER, "bad failed, and its Celery result is SUCCESS"),
        (changed(12, digest="sha256:other"), Kind.ABSENT, "which the registry does not have"),
        (
            changed(5, builders=(("registry/app:1", "12"), ("registry/app:1", "13"))),
            Kind.DOUBLED,
            "registry/app:1 was built by 12 and 13 at the same time",
        ),
        ([*GOOD, Left(9, "lock", "registry/app:1")], Kind.LEFT, "left over: lock registry/app:1"),
        (
            [*GOOD, Died(9, "light", 1)],
            Kind.DIED,
            "the worker light, which nobody had touched, ended with 1",
        ),
        (changed(8, at=60), Kind.LATE, "57.0 s after the last fault"),
    ],
)
def test_what_is_wrong_is_found(history: Sequence[Event], kind: Kind, said: str) -> None:
    found = violations(history, late=2)
    assert any(each.kind == kind and said in each.said for each in found), found


def test_the_same_pair_of_builders_is_told_once() -> None:
    pair = (("registry/app:1", "12"), ("registry/app:1", "13"))
    history = [*GOOD, Building(4.1, pair), Building(4.2, pair)]
    assert len(violations(history)) == 1


def test_a_history_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    history = [*GOOD, Left(9, "lock", "registry/app:1"), Died(9, "light", 1)]
    save(history, tmp_path / "history.jsonl")
    assert load(tmp_path / "history.jsonl") == history


def test_of_one_build_there_is_what_concerns_it_or_all() -> None:
    died = Died(9, "light", 1)
    assert violations(of_build([*GOOD, died], "one")) == violations([died])
    pair = (("registry/app:2", "12"), ("registry/app:2", "13"))
    history = [*GOOD, Building(4.1, pair)]
    assert violations(of_build(history, "one")) == []
    assert [each.kind for each in violations(of_build(history, "bad"))] == [Kind.DOUBLED]
