"""What workers believe of what they read."""

import random

import pytest

from imagemill.signing import Keys
from imagemill.state.seal import BrokenSealError, Seal

ONE, OTHER = Keys.of("1" * 32), Keys.of("2" * 32)


def test_what_a_worker_sealed_is_read() -> None:
    sealed = Seal(ONE).close("record", "id", "text\nof lines")
    assert Seal(ONE).open("record", "id", sealed) == "text\nof lines"


@pytest.mark.parametrize(
    ("purpose", "build"), [("message", "id"), ("record", "other")], ids=["purpose", "build"]
)
def test_a_seal_is_of_one_purpose_and_build(purpose: str, build: str) -> None:
    sealed = Seal(ONE).close("record", "id", "text")
    with pytest.raises(BrokenSealError):
        Seal(ONE).open(purpose, build, sealed)


def test_of_a_thousand_changes_none_is_believed() -> None:
    sealed, chance = Seal(ONE).close("record", "id", '{"context": "name"}'), random.Random(7)
    for _ in range(1000):
        at = chance.randrange(len(sealed))
        changed = sealed[:at] + chance.choice("0123456789abcdef\n.{}") + sealed[at + 1 :]
        if changed != sealed:
            with pytest.raises(BrokenSealError):
                Seal(ONE).open("record", "id", changed)


@pytest.mark.parametrize("sealed", ["", "\n", "{}", ".\n{}", "a.b\n{}"])
def test_what_has_no_seal_is_not_believed(sealed: str) -> None:
    with pytest.raises(BrokenSealError):
        Seal(ONE).open("record", "id", sealed)


def test_a_key_is_changed_while_builds_run() -> None:
    before, both = Seal(ONE), Seal(Keys((*OTHER.keys, *ONE.keys)))
    assert both.open("record", "id", before.close("record", "id", "x")) == "x"
    with pytest.raises(BrokenSealError):
        before.open("record", "id", both.close("record", "id", "x"))


def test_a_key_of_anybody_else_is_not_believed() -> None:
    sealed = Seal(OTHER).close("record", "id", "x")
    with pytest.raises(BrokenSealError):
        Seal(ONE).open("record", "id", sealed)
