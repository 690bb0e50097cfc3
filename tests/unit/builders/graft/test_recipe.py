"""Which instructions are the code alone, and what the others see."""

import pytest

from imagemill.builders.graft import Refusal
from imagemill.builders.graft.recipe import (
    Copy,
    Setting,
    WorkingFolder,
    folder_after,
    read,
    reads,
)
from imagemill.dockerfile.syntax import Instruction


def test_the_suffix_begins_at_the_first_copy_after_the_last_that_runs() -> None:
    found = read(
        "FROM base\nCOPY lock /\nRUN install\nWORKDIR /app\nCOPY --chown=1:2 --chmod=0640 a b c/\n"
        'ENV A=b\nUSER 7\nWORKDIR sub\nADD d .\nCMD ["x"]\n',
        None,
    )
    assert found.operations == (
        Copy(5, "COPY", ("a", "b"), "c/", "1:2", 0o640),
        Setting(6, "ENV"),
        Setting(7, "USER"),
        WorkingFolder(8, "sub", "7"),
        Copy(9, "ADD", ("d",), "."),
        Setting(10, "CMD", ("x",)),
    )
    assert found.read_before == ("lock",)
    assert found.working_folders == ("/app",)
    assert found.images == ("base",)


def test_what_other_stages_see_counts_and_their_images_too() -> None:
    found = read(
        "FROM one AS first\nWORKDIR /w\nCOPY x /\nRUN --mount=target=/m,source=y true\n"
        "FROM first\nCOPY --from=two /z /z\nCOPY z /\n",
        None,
    )
    assert found.read_before == ("x", "y")
    assert found.images == ("one", "two")
    assert found.base == "one"
    assert found.working_folders == ("/w",)


@pytest.mark.parametrize(
    "instruction",
    [
        "RUN --mount=type=bind,target=/x true",
        "RUN --mount=target=/x,source=$A true",
        "COPY $A /",
        'COPY "a b" /',
        "COPY <<EOF /a\nb\nEOF",
        "COPY --parents a /",
        "COPY na\u00efve\u00a0name /",
        "RUN --mount=type=BIND,target=/x true",
        "RUN --mount=type=$A,source=y,target=/x true",
    ],
)
def test_what_cannot_be_read_sees_everything(instruction: str) -> None:
    found = read(f"FROM scratch\n{instruction}\nRUN true\nCOPY code /\n", None)
    assert "." in found.read_before


def test_a_mount_in_quotes_sees_everything() -> None:
    text = 'RUN --mount="source=a b,target=/x" true'
    assert reads([Instruction(1, "RUN", text)]) == ["."]


@pytest.mark.parametrize("mount", ["type=cache,target=/c", "type=secret,id=a", "from=b,target=/x"])
def test_other_mounts_see_nothing_of_the_source(mount: str) -> None:
    assert read(f"FROM a AS b\nRUN --mount={mount} true\nCOPY c /\n", None).read_before == ()


@pytest.mark.parametrize(
    "dockerfile",
    [
        "FROM a\nCOPY . .\nRUN true\n",
        "FROM a\nCOPY . .\nCOPY --from=b /c /c\n",
        "FROM a\nCOPY . .\nADD https://example.com/x /\n",
        "FROM a\nADD https://example.com/x /\nCOPY . .\n",
        'FROM a AS b\nADD ["git@example.com:a/b.git", "/"]\nFROM a\nCOPY --from=b /x /\nCOPY . .\n',
        "FROM a\nCOPY --link . .\n",
        "FROM a\nCOPY . $HOME\n",
        "FROM a\nCOPY . .\nONBUILD RUN true\n",
        "FROM a\nCOPY --chmod=4755 . .\n",
        "FROM a\nCMD x\n",
        "FROM $A\nCOPY . .\n",
        "ARG A\nFROM x-$A\nCOPY . .\n",
        "FROM a\nENV A=/x\nCOPY . '$A'\n",
        "FROM a\nENV A=/x\nCOPY . $A\u00e9\n",
        "FROM a\nENV A=/x\nCOPY . ${A:+/y}\n",
        "FROM a\nENV A=/x\nCOPY . \\$A\n",
        "# syntax=example.com/own\nFROM a\nCOPY . .\n",
        "# escape=`\nFROM a\nCOPY . .\n",
        "\n#!/usr/bin/env x\n # syntax=example.com/own\nFROM a\nCOPY . .\n",
        'FROM a AS b\nRUN --mount="type=bind,source=x y,target=/x" true\nCOPY c /\n',
        "FROM a AS b\nRUN --mount=source=x\\ y,target=/x true\nCOPY c /\n",
        "FROM a AS b\nONBUILD COPY . /all\nFROM b\nCOPY c /\n",
        "FROM a AS b\nONBUILD COPY . /all\nFROM b AS c\nFROM d\nCOPY --from=c /x /\nCOPY c /\n",
        "FROM a\nCOPY . .\nFROBNICATE\n",
        "COPY . .\n",
        "",
    ],
)
def test_where_the_code_cannot_be_told_apart_it_is_refused(dockerfile: str) -> None:
    with pytest.raises(Refusal):
        read(dockerfile, None)


def test_images_that_stages_stand_on_are_told_apart() -> None:
    found = read(
        "FROM a\nFROM 0 AS x\nCOPY --from=0 /b /\nFROM x\nCOPY --from=c /d /\nCOPY e /\n", None
    )
    assert (found.base, found.bases, found.images) == ("0", ("a", "0"), ("a", "0", "c"))


def test_what_is_fetched_by_its_checksum_is_the_same() -> None:
    text = "FROM a\nADD --checksum=sha256:1 https://example.com/x /\nRUN true\nCOPY . .\n"
    assert read(text, None).operations == (Copy(4, "COPY", (".",), "."),)


def test_variables_that_the_dockerfile_sets_beyond_doubt_have_their_values() -> None:
    found = read(
        "ARG V=1\nARG OTHER\nFROM base:$V AS a\nENV NAME a\n"
        'ENV TOP="/srv"\nENV TOP=/opt \\\n  APP=${TOP}/app\nENV PS1 a b = "c"\n'
        "COPY $NAME /\nRUN true\nFROM image-$OTHER\nFROM a\n"
        'WORKDIR $TOP\nCOPY ["x", "${APP}/y"]\nVOLUME $TOP\n',
        None,
        {"OTHER": "x"},
    )
    assert found.bases == ("base:1", "image-x")
    assert found.read_before == ("a",)
    assert found.operations == (Copy(14, "COPY", ("x",), "/srv/app/y"), Setting(15, "VOLUME"))
    assert found.working_folders == ("/opt",)


@pytest.mark.parametrize(
    "setting",
    [
        "ARG D=/app",  # the base image may have another
        "ENV D=$X",
        "ENV D='/app'",
        "ENV D=/app\nENV D $X",
        "ENV D=/app\nENV D=/a\\ b",
        "ENV D=",
        "RUN D=/app",
    ],
)
def test_other_variables_are_not_known(setting: str) -> None:
    with pytest.raises(Refusal):
        read(f"FROM a\n{setting}\nCOPY x $D/\n", None)


@pytest.mark.parametrize(
    "label",
    [
        'a="1"',
        "x=y a=1",
        '"a"=1',
        "'a b'=1",
        "x=y \\\n  a=1",
        "$name=1",
        "x=1 ${name}=2",
        "other.a=1",
    ],
)
def test_a_label_that_the_dockerfile_may_give_too_is_not_taken_away(label: str) -> None:
    found = read(f"FROM b AS c\nLABEL {label}\nFROM c\nCOPY x /\n", None)
    with pytest.raises(Refusal, match="label a"):
        found.check_gone(["a"])


def test_other_labels_are_taken_away() -> None:
    found = read('FROM b\nLABEL x="$y" z=$w\nCOPY x /\n', None)
    found.check_gone(["org.opencontainers.image.revision", "c"])


def test_whose_a_copy_is_may_be_said_by_a_variable() -> None:
    found = read("FROM jupyter/base\nCOPY --chown=$NB_UID:${NB_GID} x /\n", None)
    assert found.operations == (Copy(2, "COPY", ("x",), "/", "$NB_UID:${NB_GID}"),)


def test_a_user_holds_until_another_is_named() -> None:
    found = read("FROM a\nCOPY x /\nWORKDIR b\nUSER 7\nWORKDIR c\n", None)
    assert [each.owner for each in found.by("5") if isinstance(each, WorkingFolder)] == ["5", "7"]
    assert [each.owner for each in found.by("") if isinstance(each, WorkingFolder)] == [None, "7"]


def test_a_mark_of_the_byte_order_is_none_of_the_text() -> None:
    assert read("\ufeffFROM a\nCOPY x /\n", None).images == ("a",)


def test_the_target_is_the_final_stage() -> None:
    dockerfile = "FROM a AS one\nCOPY x /\nFROM b AS two\nCOPY y /\n"
    assert read(dockerfile, "ONE").base == "a"
    assert read(dockerfile, "one").read_before == ("y",)
    with pytest.raises(Refusal):
        read(dockerfile, "three")


def test_working_folders_follow_one_another() -> None:
    assert folder_after(("a", "/b", "../c"), "/x") == "/c"
    with pytest.raises(Refusal):
        folder_after(("$A",), "/")
