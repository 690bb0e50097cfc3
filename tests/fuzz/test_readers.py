"""What others wrote, at random, goes to all that reads it: it is read, or refused in our words.

`make test` tries each reader with a few texts, `make fuzz SECONDS=60` for as long as it is told. A
text is made of the reader's own words, so that it comes further than noise would. What fails is
shown, made as small as it can be, and tried first the next time (.hypothesis).
"""

import io
import os
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagemill.builders import engine_failures
from imagemill.builders.kaniko import executor_log
from imagemill.config import load
from imagemill.context.dockerignore import DockerIgnore
from imagemill.dockerfile import base_images, images, reads, syntax
from imagemill.dockerfile.generate.project import Project
from imagemill.dockerfile.generate.requirements import Requirements
from imagemill.dockerfile.generate.static_metadata import script
from imagemill.errors import ImagemillError
from imagemill.messages import BuildRequest
from imagemill.ports import Quiet
from imagemill.reference import ImageReference
from imagemill.registries.authorization import parse_challenges
from imagemill.registries.docker_config import DockerConfig
from imagemill.sources.archive import unpack
from imagemill.sources.artifact import url as artifact_url
from imagemill.sources.git import failures as git_failures
from imagemill.sources.git import url as git_url
from imagemill.text import one_line, printable
from processor import at_most
from unit.worker.test_guard import JSON, TASKS, message
from worker import guard

SECONDS = float(os.environ.get("IMAGEMILL_TEST_FUZZ_SECONDS", "0"))
"""How long all readers together are tried; at least one round each."""

LONGEST = 5.0
"""Seconds of the processor's time that one text may take."""


def words(*known: str, most: int = 40) -> st.SearchStrategy[str]:
    """Texts of these words, and of some that are none."""
    noise = st.text(max_size=6) | st.sampled_from([" ", "\n", "\t", "\\", '"', "'", "\x00", "\r"])
    return st.lists(st.sampled_from(known) | noise, max_size=most).map("".join)


def as_file(name: str, read: Callable[[Path], object]) -> Callable[[str], object]:
    """Return what has a text read as a file of this name."""

    def written(text: str) -> object:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / name).write_bytes(text.encode(errors="surrogatepass"))
            return read(Path(folder) / name)

    return written


def dockerfile(text: str) -> None:
    for instruction in syntax.instructions(text):
        instruction.shown_as("RUN x")
    base_images.stages(text)
    images.images(text, {})
    reads.reads_git(text)


def ignore(text: str) -> None:
    patterns = DockerIgnore.parse(text.encode(errors="surrogatepass"), ".dockerignore")
    for path in (b"a", b"a/b/c", text.encode(errors="surrogatepass")[:40]):
        patterns.match(path, (False,) * len(patterns.texts))


def said(text: str) -> None:
    git_failures.failure(git_url.parse("git+https://github.com/a/b").remote, text)
    engine_failures.registry_failure(text, engine_failures.Doing("Pushing", "r.example"))
    executor_log.explain(text.split("\n"), 1, "r.example/a:1")
    assert "\n" not in one_line(text)
    printable(text)


def unpacked(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        (top / "archive").write_bytes(content)
        (top / "out").mkdir()
        unpack(top / "archive", top / "out", Quiet())
        assert {path.name for path in top.iterdir()} == {"archive", "out"}


def archive(names: Sequence[str], kind: str) -> bytes:
    made = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(made, "w") as packed:
            for name in names:
                packed.writestr(zipfile.ZipInfo(name), b"content")
    else:
        with tarfile.open(fileobj=made, mode="w:gz" if kind == "gz" else "w") as tar:
            for number, name in enumerate(names):
                member = tarfile.TarInfo(name)
                member.type = [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE][number % 3]
                member.linkname = names[0] if number % 3 else ""
                tar.addfile(member)
    return made.getvalue()


def damaged(content: bytes, at: int, by: bytes) -> bytes:
    """Return the content with something else in one place of it."""
    place = at % (len(content) + 1)
    return content[:place] + by + content[place + len(by) :]


PATHS = st.lists(st.sampled_from(["a", "b", "..", ".", "", "\\", "C:"]), min_size=1, max_size=4)
ARCHIVES = st.builds(
    damaged,
    st.builds(
        archive,
        st.lists(PATHS.map("/".join), min_size=1, max_size=5, unique=True),
        st.sampled_from(["tar", "gz", "zip"]),
    ),
    st.integers(0, 1 << 20),
    st.binary(max_size=8),
)


class Reader(NamedTuple):
    """Something that reads what others wrote, and the errors by which it refuses."""

    texts: st.SearchStrategy[Any]
    read: Callable[[Any], object]
    refused: tuple[type[Exception], ...] = (ImagemillError,)


READERS = {
    "dockerfile": Reader(
        words("FROM ", "RUN ", "COPY ", "ARG ", "--from=", "--mount=type=", "<<A", "\nA\n", "${a:-",
              "}", "AS b", "scratch", "# syntax=", "# escape=`", "\\\n", "$a", "`", "ONBUILD "),
        dockerfile,
    ),
    "dockerignore": Reader(words("**", "*", "?", "[", "]", "^", "-", "!", "/", "a", "..", "#"), ignore),
    "requirements": Reader(
        words("a", "==1.0", "; ", "python_version", "<'3'", "[b]", " @ ", "git+https://h/a", "-r ",
              "--hash=sha256:", "-e .", "#", "\\\n", "(", ")", "://", "$", "~="),
        as_file("requirements.txt", lambda path: Requirements().read(Project(path.parent), path.name)),
    ),
    "pyproject": Reader(
        words("[project]\n", "[tool.a]\n", "dependencies", " = ", "[", "]", '"a>=1"', "{", "}", ",",
              "'''", "\n", "1979-05-27", "0x", "inf", "a."),
        as_file("pyproject.toml", lambda path: Project(path.parent).toml(path.name)),
    ),
    "script": Reader(
        words("# /// script\n", "# ///\n", "# dependencies = ", "['a']", "#\n", "# ", "import a\n"),
        as_file("main.py", lambda path: script(Project(path.parent), path.name)),
    ),
    "launch config": Reader(
        words("builder:", "\n  ", "type: ", "kaniko", "policy:", "destinations: ", "[", "]", "{", "}",
              "&a ", "*a", "<<: ", "!!python/object:a", "- ", "|", ">", ": ", "registry", "~"),
        as_file("config.yaml", load),
    ),
    "docker config": Reader(
        words('{"auths": ', '{"r.example": ', '{"auth": "', "YTpi", '"', "}", "null", "[", "]", ",",
              '"credHelpers": ', '"credsStore": ', "1"),
        as_file("config.json", lambda path: DockerConfig(path).login(ImageReference("r.example", "a"))),
    ),
    "reference": Reader(
        words("r.example", "/", ":", "@sha256:", "a", "A", "_", "-", ".", "0" * 64, "localhost", "[::1]"),
        ImageReference.parse,
    ),
    "git source": Reader(
        words("git+https://", "h.example", "/", "@", "#", "subdirectory=", "a", "%", "..", ":", "?",
              "git+ssh://", "git+file://", "-", "sha256"),
        git_url.parse,
    ),
    "artifact": Reader(
        words("https://", "s3://", "gs://", "h.example", "/", "#sha256=", "a", "0" * 64, "%2e", "?", "&",
              "[", "]", "@", "subdirectory=", "version=", ".tar.gz"),
        artifact_url.parse,
    ),
    "challenges": Reader(
        words("Bearer ", "Basic ", "realm=", '"https://h"', ",", "service=", '"', "\\", "=", " "),
        lambda text: parse_challenges([text, text]),
    ),
    "what programs say": Reader(
        words("error: ", "denied", "unauthorized", "load key ", "fatal: ", "\x1b[1", "\x1b]0;",
              "GET https://h/v2/", "/manifests/", "tag 'x' already exists in ", "level=fatal msg="),
        said,
    ),
    "envelope": Reader(
        words('{"properties": ', '{"delivery_info": {}', '"body": "', "W10=", '"', "{", "}", "[", "]",
              '"headers": {}', ", ", '"body_encoding": "base64"', "NaN", "1e999"),
        guard.envelope,
        (guard.Refused,),
    ),
    "message": Reader(
        st.builds(message, body=JSON, eta=JSON, retries=JSON, argsrepr=JSON),
        lambda come: guard.check(come, TASKS),
        (guard.Refused,),
    ),
    "request": Reader(
        st.dictionaries(st.sampled_from([*BuildRequest.model_fields, "a"]), JSON, max_size=6),
        BuildRequest.parse,
    ),
    "archive": Reader(ARCHIVES, unpacked),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_whatever_others_wrote_is_read_or_refused(reader: Reader) -> None:
    @settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
    @given(reader.texts)
    def tried(text: Any) -> None:
        with at_most(LONGEST), suppress(*reader.refused):
            reader.read(text)

    end = time.monotonic() + SECONDS / len(READERS)
    tried()
    while time.monotonic() < end:
        tried()
