"""What an earlier image is found by."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from imagemill.builders.graft import Refusal
from imagemill.builders.graft.grafting import GraftPlace, question
from imagemill.config.model import AutoBuilder
from imagemill.context import Entry, Manifest
from imagemill.context.hashing import Inputs
from imagemill.context.manifest import Dockerfile
from imagemill.messages import BuildRequest
from imagemill.ports import BuildInputs
from imagemill.reference import ImageReference
from imagemill.registries.blobs import Blobs
from imagemill.state.grafts import FolderShelf, Grafts

TEXT = b"FROM scratch AS a\nCOPY lock /\nRUN x\nFROM a\nCOPY code /\n"
MANIFEST = Manifest(
    Dockerfile("Dockerfile", "11", TEXT),
    (Entry("file", b"code", 1, "22"), Entry("file", b"lock", 1, "33")),
)
GIVEN = Inputs.of(BuildRequest(source="x"), AutoBuilder())


def no_registry(image: ImageReference) -> Blobs:
    raise AssertionError(image)


def key(
    manifest: Manifest = MANIFEST,
    given: Inputs = GIVEN,
    image: str = "example.com/a:1",
    builder: str = "docker",
    tenant: str | None = None,
    known: Mapping[str, str] | None = None,
) -> str:
    place = GraftPlace(no_registry, Grafts(FolderShelf(Path())), Path(), tenant)
    inputs = BuildInputs(ImageReference.parse(image))
    return question(manifest, inputs, given, builder, place, known).key


def written(text: bytes) -> Manifest:
    return Manifest(Dockerfile("Dockerfile", "12", text), MANIFEST.entries)


def changed(path: bytes) -> Manifest:
    entries = tuple(
        entry._replace(sha256="44") if entry.path == path else entry for entry in MANIFEST.entries
    )
    return Manifest(MANIFEST.dockerfile, entries)


def test_the_code_does_not_count_nor_does_the_repository() -> None:
    assert key(changed(b"code")) == key()
    assert key(image="example.com/b:2") == key()


def test_all_else_counts() -> None:
    others = {
        key(),
        key(changed(b"lock")),
        key(written(TEXT + b"ENV a=b\n")),
        key(given=replace(GIVEN, build_args={"A": "b"})),
        key(given=replace(GIVEN, platform="linux/arm64")),
        key(given=replace(GIVEN, options={"x": "y"})),
        key(image="example.org/a:1"),
        key(builder="kaniko"),
        key(tenant="one"),
        key(tenant="two"),
    }
    assert len(others) == 10


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"# About a.\n" + TEXT, b"# About b.\n#\n" + TEXT),
        (TEXT + b'CMD ["a"]\n', TEXT + b'CMD ["b", "c"]\n'),
        (TEXT + b'ENTRYPOINT ["a $b"]\nUSER 1\n', TEXT + b'entrypoint ["b"]\nUSER 1\n'),
    ],
)
def test_neither_does_what_a_command_says_or_a_comment_at_the_top(one: bytes, other: bytes) -> None:
    assert key(written(one)) == key(written(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TEXT + b"CMD a\n", TEXT + b"CMD b\n"),  # by a shell
        (TEXT + b'CMD ["a\\n"]\n', TEXT + b'CMD ["b\\n"]\n'),
        (TEXT + b'CMD ["a"]\n', TEXT + b'ENTRYPOINT ["a"]\n'),
        (TEXT + b'CMD ["a", \\\n"b"]\n', TEXT + b'CMD ["a", \\\n"c"]\n'),
        (b'FROM scratch\nCMD ["a"]\nRUN x\nCOPY code /\n', b'FROM scratch\nCMD ["b"]\nRUN x\nCOPY code /\n'),
        (TEXT + b'CMD ["a"]\n', TEXT + b"CMD\n"),
        (b"# a\n# syntax=docker/dockerfile:1\n" + TEXT, b"# syntax=docker/dockerfile:1\n" + TEXT),
    ],
)  # fmt: skip
def test_what_is_not_surely_a_command_or_a_comment_counts(one: bytes, other: bytes) -> None:
    assert key(written(one)) != key(written(other))


def test_another_frontend_is_refused() -> None:
    key(given=replace(GIVEN, build_args={"BUILDKIT_SYNTAX": "docker/dockerfile:1"}))
    with pytest.raises(Refusal):
        key(given=replace(GIVEN, build_args={"BUILDKIT_SYNTAX": "example.com/own"}))


def test_base_images_count_by_the_digests_that_are_known() -> None:
    text = written(b"FROM example.com/base\nCOPY code /\n")
    keys = {key(text, known={"example.com/base": f"sha256:{n * 64}"}) for n in "112"}
    assert len(keys) == 2


def test_with_secrets_the_repository_counts_too() -> None:
    secret = replace(GIVEN, secrets=("token",))
    assert key(given=secret) != key(given=secret, image="example.com/b:1")
