"""The images that a Dockerfile may make a builder fetch, also where somebody hides them."""

import pytest

from imagemill.dockerfile.images import images


@pytest.mark.parametrize(
    ("dockerfile", "found"),
    [
        ("FROM python:3.12", {"python:3.12"}),
        ("from --platform=linux/amd64 python AS a\nFROM a\n", {"python"}),
        ("FROM scratch\nCOPY --from=evil/x /a /b", {"evil/x"}),
        ("FROM a AS one\nFROM one\nCOPY --from=0 / /\nCOPY --from=one / /", {"a"}),
        ("FROM a\nCOPY --from=7 / /", {"a", "7"}),
        ("FROM a\nRUN --mount=type=bind,from=evil/x,target=/x true", {"a", "evil/x"}),
        ('FROM a\nRUN --mount=type=bind,"from=evil/x" true', {"a", "evil/x"}),
        ('FROM a\nRUN --mount="type=bind, from=evil/x" --network=none true', {"a", "evil/x"}),
        ("FROM a\nRUN python -c 'x(from=1)'", {"a"}),
        ("FROM a\nONBUILD COPY --from=evil/x / /", {"a", "evil/x"}),
        ("FROM a\nRUN <<X\nX\nFROM evil/x\n", {"a", "evil/x"}),
        ("FROM a\nRUN <<'X Y'\nFROM evil/x\nX Y\n", {"a", "evil/x"}),
        ("FRO\\\nM evil/x", {"evil/x"}),
        ("\ufeffFROM evil/x", {"evil/x"}),
        ("\ufeff# escape=`\nFRO`\nM evil/x", {"evil/x"}),
        ("# escape=`\nFRO`\nM evil/x", {"evil/x"}),
        ("# syntax=evil/x:1\nFROM a", {"a", "evil/x:1"}),
        ("#!/x\n# Syntax = evil/x\nFROM a", {"a", "evil/x"}),
        ("// syntax=evil/x\nFROM a", {"a", "evil/x"}),
        ('{"syntax": "evil/x"}\nFROM a', {"a", "evil/x"}),
        ("FROM a\n# syntax=of no meaning", {"a"}),
        ("ARG X=a\nFROM ${X}:1", {"a:1"}),
        ("ARG X=a\nARG X=b\nFROM $X", {"b"}),
        ("FROM $NOBODY", {"$NOBODY"}),
        ("FROM a\nARG X=b\nFROM $X", {"a", "$X"}),
        ("FROM ${X:-evil/x}", {"evil/x"}),
        ("ARG X=\nFROM ${X-r.io/base/}evil", {"evil"}),
        ("ARG X=\nFROM ${X+evil/}a", {"evil/a"}),
        ("ARG X=\nFROM ${X:-a}${X:+evil}", {"a"}),
        ("ARG X\nFROM ${X-a}", {"a"}),
        ('FROM --platform="${X:+ a }linux/amd64" evil/x', {"a", "}linux/amd64", "evil/x"}),
        (
            'FROM --platform="${X:+ a AS }linux/amd64" evil/x AS b',
            {"a", "AS", "}linux/amd64", "evil/x"},
        ),
        ("FROM a\nRUN --mount='target=/a\\' b,from=evil/x' true", {"a", "evil/x"}),
        ("FROM a\nCOPY --from=evil / /\nFROM a AS evil", {"a", "evil"}),
        ("FROM a AS b\nFROM c\nFROM 1", {"a", "c"}),
        ("", set()),
    ],
)
def test_what_is_found(dockerfile: str, found: set[str]) -> None:
    assert images(dockerfile, {}) == found


def test_values_of_a_build_count() -> None:
    assert images("ARG X=a\nFROM $X", {"X": "evil/x", "Y": "z"}) == {"evil/x"}
    assert images("ARG X\nFROM $X", {"X": "evil/x"}) == {"evil/x"}
    assert images("FROM a", {"BUILDKIT_SYNTAX": "evil/x"}) == {"a", "evil/x"}
    assert images("ARG X\nFROM $X", {"X": '"evil/x"'}) == {"evil/x"}


def test_a_large_dockerfile_takes_no_time_to_speak_of() -> None:
    lines = "RUN --mount=type=bind,source=a,target=b true \\\n && echo\n" * 5000
    assert images(f"FROM a\n{lines}", {}) == {"a"}
    assert images("FROM a\nRUN " + '--mount="' * 20000, {}) == {"a"}
