"""How two lists of Kaniko's arguments become one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagemill.builders.kaniko.arguments import (
    LOW_MEMORY,
    REPEATABLE,
    RESERVED,
    flag,
    merge,
    reserved,
)


@pytest.mark.parametrize("argument", ["--cache", "--cache=", "--cache=true", "--cache=a=b"])
def test_flag_is_what_is_before_the_first_equals_sign(argument: str) -> None:
    assert flag(argument) == "cache"


def test_flag_replaces_the_one_of_the_same_name_whatever_its_form() -> None:
    first = ["--cache", "--push-retry=3", "--verbosity="]
    assert merge(first, ["--cache=false", "--verbosity"]) == [
        "--push-retry=3",
        "--cache=false",
        "--verbosity",
    ]


@pytest.mark.parametrize("name", sorted(REPEATABLE))
def test_repeatable_flags_add_up(name: str) -> None:
    assert merge([f"--{name}=a=1"], [f"--{name}=b=2", f"--{name}=a=3"]) == [
        f"--{name}=a=1",
        f"--{name}=b=2",
        f"--{name}=a=3",
    ]


def test_later_value_of_a_build_argument_is_later_for_kaniko_too() -> None:
    """The second list is the build's, which counts: of one key Kaniko takes the last value."""
    assert merge(
        ["--build-arg=A=1", "--build-arg=B=1"], ["--build-arg=A=2", "--build-arg=B=1"]
    ) == [
        "--build-arg=A=1",
        "--build-arg=A=2",
        "--build-arg=B=1",
    ]


def test_of_a_flag_that_is_twice_in_one_list_the_last_counts() -> None:
    assert merge([], ["--cache=true", "--cache-ttl=1h", "--cache=false"]) == [
        "--cache-ttl=1h",
        "--cache=false",
    ]


def test_reserved_flags_are_found_in_every_form() -> None:
    arguments = [
        "--cache",
        "--context=dir:///x",
        "--no-push",
        "--context-sub-path=",
        "--contexts=1",
    ]
    assert list(reserved(arguments)) == [(1, "context"), (2, "no-push"), (3, "context-sub-path")]


def test_no_flag_is_both_reserved_and_repeatable() -> None:
    assert REPEATABLE.isdisjoint(RESERVED)
    assert not {flag(argument) for argument in LOW_MEMORY} & RESERVED.keys()


ARGUMENTS = st.lists(
    st.builds(
        lambda name, value: f"--{name}{value}",
        st.sampled_from(["cache", "push-retry", "build-arg", "label"]),
        st.sampled_from(["", "=", "=a", "=a=b", "=c"]),
    )
)


@given(ARGUMENTS, ARGUMENTS)
def test_merging_keeps_all_of_the_second_list_and_nothing_twice(
    first: list[str], second: list[str]
) -> None:
    result = merge(first, second)
    single = [flag(argument) for argument in result if flag(argument) not in REPEATABLE]
    assert len(single) == len(set(single))
    assert len(result) == len(set(result))
    assert result[len(result) - len(merge([], second)) :] == merge([], second)
    assert merge(result, second) == result
