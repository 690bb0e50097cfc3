"""The record of an image's inputs: what it holds, what it never holds, and that it is read as it
was written.
"""

import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trees
from imagemill import context
from imagemill.config import LaunchConfig
from imagemill.context import Entry, Manifest
from imagemill.context.entries import Kind
from imagemill.context.manifest import Dockerfile
from imagemill.dockerfile.base_images import FromLine, stages
from imagemill.dockerfile.generate import Wishes
from imagemill.errors import OperatorError, UserError
from imagemill.messages import BuildRequest
from imagemill.ports import Quiet
from imagemill.why import record as inputs
from imagemill.why.record import DockerfileInput, InputRecord, record

BUILDER = LaunchConfig().builder


def of(dockerfile: bytes = b"", entries: tuple[Entry, ...] = (), **fields: Any) -> InputRecord:
    manifest = Manifest(Dockerfile("Dockerfile", "0" * 64, dockerfile), entries)
    return record(BuildRequest(source="/source", **fields), BUILDER, manifest)


def test_a_record_has_all_inputs_of_the_source_hash(tmp_path: Path) -> None:
    source = trees.make(
        tmp_path, {"Dockerfile": "FROM a\n", "run*": "x", "src/m.py": "y", "link@": "src/m.py"}
    )
    manifest = context.manifest(source, None, Quiet())
    request = BuildRequest(
        source="/source",
        target="serve",
        build_args={"A": "1"},
        platform="linux/amd64",
        labels={"team": "ml"},
        secrets=("z", "a"),
    )
    made = record(request, BUILDER, manifest)
    assert [
        (entry.kind, entry.path, entry.size, len(entry.sha256), entry.target)
        for entry in made.entries
    ] == [
        ("file", b"Dockerfile", 7, 16, b""),
        ("link", b"link", 0, 0, b"src/m.py"),
        ("exec", b"run", 1, 16, b""),
        ("dir", b"src", 0, 0, b""),
        ("file", b"src/m.py", 1, 16, b""),
    ]
    assert made.recipe == DockerfileInput("Dockerfile", manifest.dockerfile.sha256[:16])
    assert made.stages == (FromLine("", "a"),)
    assert (made.target, made.platform, made.labels) == ("serve", "linux/amd64", {"team": "ml"})
    assert made.secrets == ("a", "z")
    assert made.build_args.keys() == {"A"}


def test_the_platform_is_the_configs_where_the_request_has_none() -> None:
    builder = LaunchConfig.model_validate(
        {"builder": {"type": "docker", "platform": "linux/arm64"}}
    ).builder
    manifest = Manifest(Dockerfile("Dockerfile", "0" * 64), ())
    assert record(BuildRequest(source="/source"), builder, manifest).platform == "linux/arm64"


def test_a_generated_dockerfile_is_told_from_the_sources_own(tmp_path: Path) -> None:
    source = trees.make(tmp_path, {"train.py": "print()", "requirements.txt": "numpy==2.0\n"})
    manifest = context.manifest(source, Wishes(base="python:3.12-slim"), Quiet())
    made = record(BuildRequest(source="/source"), BUILDER, manifest)
    assert made.recipe.generated
    assert "python:3.12-slim" in [stage.base for stage in made.stages]


def test_values_of_build_arguments_are_in_no_record() -> None:
    dockerfile = b"ARG BASE=python:3.11\nARG OTHER=$BASE\nFROM ${BASE} AS one\nFROM $OTHER\n"
    made = of(dockerfile, build_args={"BASE": "hunter2/secret"})
    assert "hunter2" not in repr(made)
    assert b"hunter2" not in zlib.decompress(made.dump()[1:])
    assert made.stages == (FromLine("one", "${BASE}"), FromLine("", "$BASE"))


def test_equal_values_of_two_arguments_do_not_show() -> None:
    digests = of(build_args={"A": "same", "B": "same"}).build_args
    assert digests["A"] != digests["B"]


TEXT = st.text(max_size=5)
PATHS = st.lists(
    st.binary(min_size=1, max_size=6).filter(lambda path: b"\0" not in path),
    max_size=8,
    unique=True,
).map(sorted)
KINDS: list[Kind] = ["file", "exec", "link", "dir"]


@st.composite
def records(draw: st.DrawFn) -> InputRecord:
    entries = []
    for path in draw(PATHS):
        kind = draw(st.sampled_from(KINDS))
        if kind == "dir":
            entries.append(Entry(kind, path))
        elif kind == "link":
            entries.append(Entry(kind, path, target=draw(st.binary(min_size=1, max_size=4))))
        else:
            digest = draw(st.binary(min_size=8, max_size=8)).hex()
            entries.append(Entry(kind, path, draw(st.integers(0, 1 << 40)), digest))
    return InputRecord(
        DockerfileInput(draw(TEXT), "0" * 16, draw(st.booleans())),
        tuple(entries),
        stages=tuple(
            FromLine(*stage) for stage in draw(st.lists(st.tuples(TEXT, TEXT), max_size=3))
        ),
        target=draw(st.none() | TEXT),
        platform=draw(st.none() | TEXT),
        build_args=draw(st.dictionaries(TEXT, TEXT)),
        labels=draw(st.dictionaries(TEXT, TEXT)),
        secrets=tuple(sorted(draw(st.sets(TEXT)))),
    )


@given(records())
def test_what_is_dumped_is_loaded(written: InputRecord) -> None:
    assert InputRecord.load(written.dump()) == written


def test_a_dump_does_not_depend_on_the_order_of_mappings() -> None:
    pairs = {"a": "1", "b": "2"}
    turned = dict(reversed(pairs.items()))
    assert of(labels=pairs).dump() == of(labels=turned).dump()


def test_a_record_of_a_newer_version_is_told() -> None:
    newer = bytes([inputs.VERSION + 1]) + of().dump()[1:]
    with pytest.raises(
        UserError, match=f"is of version {inputs.VERSION + 1}, and this Imagemill reads"
    ):
        InputRecord.load(newer)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x01", b"\x01{}", b"\x01" + zlib.compress(b"[]\n"), b"\x01" + zlib.compress(b"{}")],
)
def test_a_damaged_record_is_told(data: bytes) -> None:
    with pytest.raises(OperatorError, match="damaged"):
        InputRecord.load(data)


@pytest.mark.parametrize(
    "wrong", [{"kinds": ["f"]}, {"sizes": [1 << 64]}, {"sizes": ["1"]}, {"paths": ["a", "b"]}]
)
def test_a_record_with_a_column_of_another_kind_is_told(wrong: dict[str, Any]) -> None:
    whole = zlib.decompress(of(entries=(Entry("file", b"a", 1, "12" * 8),)).dump()[1:])
    head, _, digests = whole.partition(b"\n")
    text = json.dumps(json.loads(head) | wrong).encode()
    with pytest.raises(OperatorError, match="damaged"):
        InputRecord.load(b"\x01" + zlib.compress(text + b"\n" + digests))


def test_a_record_of_many_files_is_small() -> None:
    entries = tuple(
        Entry("file", f"src/package_{n // 100}/module_{n}.py".encode(), n, os.urandom(32).hex())
        for n in range(20_000)
    )
    assert len(of(entries=entries).dump()) < 300_000


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        ("FROM python:3.11-slim", [("", "python:3.11-slim")]),
        (
            "from --platform=$BUILDPLATFORM golang as Build\nFROM scratch\nFROM build",
            [("Build", "golang"), ("", "scratch"), ("", "build")],
        ),
        ("ARG V=3.11\nFROM python:$V", [("", "python:3.11")]),
        ("ARG V=3.11 S='-slim'\nFROM python:${V}${S}", [("", "python:3.11-slim")]),
        ("ARG A=3\nARG V=${A}.12\nFROM python:${V}", [("", "python:3.12")]),
        ("FROM python:${V:-3.12}", [("", "python:3.12")]),
        ("ARG W=9\nFROM python:${V:-${W}}", [("", "python:9")]),
        ("ARG V=1\nFROM python:3${V:+-slim}${W:+-gone}", [("", "python:3-slim")]),
        ("ARG V\nFROM python:$V", [("", "python:$V")]),
        ("FROM a\nARG V=2\nFROM python:$V", [("", "a"), ("", "python:$V")]),
        ("ARG A=1\nFROM x:$TARGETARCH-${TARGETOS:-any}", [("", "x:$TARGETARCH-${TARGETOS:-any}")]),
        ("ARG GIVEN=1\nFROM x:$GIVEN-${GIVEN:-2}", [("", "x:$GIVEN-${GIVEN:-2}")]),
        ("FROM \\\n  # a comment\n  python:3 \\\n AS x", [("x", "python:3")]),
        ("FROM a\nRUN <<EOF\nFROM b\nEOF\nRUN echo \\\nFROM c", [("", "a")]),
        ("", []),
        ("FROM", []),
    ],
)
def test_stages_stand_on_what_from_says(dockerfile: str, expected: list[tuple[str, str]]) -> None:
    assert stages(dockerfile, ["GIVEN"]) == tuple(FromLine(*stage) for stage in expected)


def test_defaults_that_double_over_and_over_do_not_grow() -> None:
    doubling = "ARG A=aaaaaaaa\n" + "".join(
        f"ARG A{n}=$A{n - 1 or ''}$A{n - 1 or ''}\n" for n in range(1, 60)
    )
    (stage,) = stages(f"{doubling}FROM $A59")
    assert len(stage.base) <= 512


def test_a_hostile_dockerfile_takes_no_time() -> None:
    """Each of these once took hours, or would: a test that does not end is the failure."""
    assert stages("ARG " + "a" * 4_000_000 + "\nFROM x") == (FromLine("", "x"),)
    assert stages("RUN <<A\n" * 500_000 + "FROM x") == ()
    assert len(stages("FROM ${A:-" + "{" * 4_000_000)) == 1


def test_a_base_image_is_told_with_the_digest_that_it_had() -> None:
    dockerfile = b"ARG V=1\nFROM a:$V AS one\nFROM b\nCOPY --from=one /x /x\n"
    manifest = Manifest(Dockerfile("Dockerfile", "0" * 64, dockerfile), ())
    request = BuildRequest(source="/source")
    found = record(request, BUILDER, manifest, {"a:1": "sha256:1", "b": "sha256:2"})
    assert [stage.base for stage in found.stages] == ["a:1@sha256:1", "b@sha256:2"]
    assert [stage.base for stage in of(dockerfile).stages] == ["a:1", "b"]
