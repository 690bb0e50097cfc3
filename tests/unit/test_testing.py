"""The doubles of registry and store; the client's are in test_client."""

import pytest

from imagemill.errors import TransientError
from imagemill.reference import ImageReference
from imagemill.testing import MemoryRegistry, MemoryStore

REPOSITORY = ImageReference.parse_destination("registry.example.com/team/model")
ABSENT = f"sha256:{'0' * 64}"


def test_a_digest_is_known_by_its_tags_and_by_itself() -> None:
    registry = MemoryRegistry()
    digest = registry.push(REPOSITORY.with_tag("v1"))
    assert registry.digest(REPOSITORY.with_tag("v1")) == digest
    assert registry.digest(REPOSITORY.with_digest(digest)) == digest
    assert registry.digest(REPOSITORY.with_tag("gone").with_digest(digest)) == digest
    assert registry.digest(REPOSITORY.with_tag("v2")) is None
    assert registry.digest(REPOSITORY.with_digest(ABSENT)) is None


def test_tags_are_added_moved_and_removed() -> None:
    registry = MemoryRegistry()
    old, new = (registry.push(REPOSITORY.with_tag(tag)) for tag in ("stable", "v2"))
    assert old != new
    registry.tag(REPOSITORY.with_digest(new), ("stable",))
    assert registry.digest(REPOSITORY.with_tag("stable")) == new
    registry.delete(REPOSITORY.with_tag("stable"))
    registry.delete(REPOSITORY.with_tag("stable"))
    assert registry.digest(REPOSITORY.with_tag("stable")) is None


def test_an_image_that_is_gone_cannot_be_tagged() -> None:
    with pytest.raises(TransientError, match="not in the registry any more"):
        MemoryRegistry().tag(REPOSITORY.with_digest(ABSENT), ("v1",))


def test_a_registry_lets_everybody_push() -> None:
    registry = MemoryRegistry()
    registry.prepare(REPOSITORY)
    assert registry.credentials(REPOSITORY) is None
    assert registry.tags == {REPOSITORY.repository: {}}


def test_names_that_no_object_can_have_are_refused() -> None:
    with pytest.raises(ValueError, match="is not a name of an object"):
        MemoryStore().uri("../x")
