"""Which instruction of a Dockerfile a builder means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagemill.dockerfile.base_images import bases
from imagemill.dockerfile.images import images
from imagemill.dockerfile.reads import reads_git
from imagemill.dockerfile.syntax import Location, find, instructions, stages


def lines(text: str) -> list[tuple[int, str]]:
    return [(instruction.line, instruction.text) for instruction in instructions(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\n\n# c\nRUN b\n", [(1, "FROM a"), (4, "RUN b")]),
        ("FROM a\r\nRUN b \\\r\n  c\r\n", [(1, "FROM a"), (2, "RUN b   c")]),
        ("RUN a \\\n# comment\n\n  b\nRUN c", [(1, "RUN a   b"), (5, "RUN c")]),
        ("RUN a \\ \t\n b\nRUN c", [(1, "RUN a  b"), (3, "RUN c")]),
        ("RUN a \\\\\nRUN b", [(1, "RUN a \\\\"), (2, "RUN b")]),
        (
            "# escape=`\nRUN a `\n b\nRUN c:\\\nRUN d",
            [(2, "RUN a  b"), (4, "RUN c:\\"), (5, "RUN d")],
        ),
        ("# syntax=x\n# escape=`\nRUN a `\n b", [(3, "RUN a  b")]),
        ("RUN <<EOF\n a\n b\nEOF\nRUN c", [(1, "RUN <<EOF"), (5, "RUN c")]),
        (
            "COPY <<-'A' <<\"B\" /d\n\ta\n\tA\nb\nB\nRUN c",
            [(1, "COPY <<-'A' <<\"B\" /d"), (6, "RUN c")],
        ),
        ("RUN cat <<EOF\nnever ended", [(1, "RUN cat <<EOF"), (2, "never ended")]),
        ("RUN a \\", [(1, "RUN a")]),
        ("RUN a\x0bb\nRUN c", [(1, "RUN a\x0bb"), (2, "RUN c")]),
    ],
)
def test_instructions_have_the_number_of_their_first_line(
    text: str, expected: list[tuple[int, str]]
) -> None:
    assert lines(text) == expected


def test_stages_have_names_or_numbers() -> None:
    text = "ARG V\nFROM a AS One\nRUN x\nFROM --platform=linux/amd64 b\nFROM c as two\nCOPY y z\n"
    assert [(stage.name, stage.named, len(stage.instructions)) for stage in stages(text)] == [
        ("one", True, 1),
        ("stage-1", False, 0),
        ("two", True, 1),
    ]


TWICE = """\
FROM base AS one
COPY a /a
RUN make
RUN make
FROM scratch
ARG WHO=me
RUN make
WORKDIR /x
RUN echo "$WHO" \\
    ${WHO:-x}
RUN make
"""


@pytest.mark.parametrize(
    ("stage", "position", "total", "shown", "line"),
    [
        ("one", 3, 4, "RUN make", 3),
        ("one", 4, 4, "RUN make", 4),
        ("stage-1", 1, 4, "RUN make", 7),
        ("stage-1", 2, 4, "WORKDIR /x", 8),
        ("stage-1", 3, 4, 'RUN echo "me"     me', 9),
        ("stage-1", 4, 4, "RUN make", 11),
        ("one", 5, 4, "RUN make", 4),  # the base's ONBUILD instruction moved it
        ("one", 2, 4, "RUN other", None),  # and this is the ONBUILD instruction
        ("nowhere", 1, 1, "RUN make", None),
    ],
)
def test_a_step_is_found_by_stage_place_and_text(
    stage: str, position: int, total: int, shown: str, line: int | None
) -> None:
    found = find(TWICE, Location(stage, position, total), shown)
    assert (found.line if found else None) == line


def test_the_stage_is_not_named_where_there_is_but_one() -> None:
    found = find("FROM scratch AS it\nCOPY a b\nRUN c", Location("", 2, 2), "RUN c")
    assert found is not None
    assert found.line == 3


@given(st.text(alphabet=st.sampled_from("RUN FOMCPY<EA\\\n\"'${}#=`ab-"), max_size=200))
def test_no_text_is_too_odd(text: str) -> None:
    for stage in stages(text):
        for position, instruction in enumerate(stage.instructions, 1):
            find(text, Location(stage.name, position, len(stage.instructions)), instruction.text)
    assert [line for line, _ in lines(text)] == sorted({line for line, _ in lines(text)})


@pytest.mark.parametrize("blank", [" ", "\t", "  ", " \t"])
def test_any_blank_ends_the_keyword(blank: str) -> None:
    text = f"ARG{blank}A=alpine\nFROM{blank}$A AS one\nCOPY{blank}.git /x\n"
    assert [stage.name for stage in stages(text)] == ["one"]
    assert reads_git(text)
    assert bases(text, {}) == ("alpine",)
    assert images(text, {}) == {"alpine"}
