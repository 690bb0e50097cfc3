"""Deleting tags, from a real registry, which cannot, and from one that can."""

import json
from collections.abc import Iterator

import pytest

from credentials import Always
from http_faults import FaultyProxy
from imagemill.errors import OperatorError, PermissionDenied, TransientError
from imagemill.reference import ImageReference
from imagemill.registries.oci import OciRegistry
from images import Pusher


@pytest.fixture
def proxy(registry: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(f"http://{registry}") as proxy:
        yield proxy


@pytest.fixture
def image(proxy: FaultyProxy) -> ImageReference:
    """An image in the registry, by its tag."""
    address = proxy.url.removeprefix("http://")
    Pusher(address, "test/delete").image("v1")
    return ImageReference.parse(f"{address}/test/delete:v1")


def answer(proxy: FaultyProxy, status: int, code: str = "") -> None:
    """What the registry answers to the next DELETE."""
    body = (
        json.dumps({"errors": [{"code": code, "message": "in its words"}]}).encode()
        if code
        else b""
    )
    proxy.fail_next(status, {"Content-Type": "application/json"}, match="^DELETE ", body=body)


def delete(image: ImageReference) -> None:
    OciRegistry(Always(None)).delete(image)


def test_tag_is_deleted_by_its_name(proxy: FaultyProxy, image: ImageReference) -> None:
    answer(proxy, 202)
    delete(image)
    assert proxy.requests[-1] == ("DELETE", "/v2/test/delete/manifests/v1")


def test_tag_is_deleted_also_where_its_digest_is_known(
    proxy: FaultyProxy, image: ImageReference
) -> None:
    """By the digest all of its tags would go."""
    answer(proxy, 202)
    delete(image.with_digest(f"sha256:{'0' * 64}"))
    assert proxy.requests[-1] == ("DELETE", "/v2/test/delete/manifests/v1")


@pytest.mark.parametrize("code", ["MANIFEST_UNKNOWN", "NAME_UNKNOWN"])
def test_tag_that_is_not_there_is_fine(
    proxy: FaultyProxy, image: ImageReference, code: str
) -> None:
    answer(proxy, 404, code)
    delete(image)


def test_bare_404_may_be_anybodys(proxy: FaultyProxy, image: ImageReference) -> None:
    answer(proxy, 404)
    with pytest.raises(TransientError, match="does not answer as a registry does"):
        delete(image)


def test_registry_that_cannot_delete_tags_says_so_and_keeps_the_image(
    image: ImageReference,
) -> None:
    with pytest.raises(
        OperatorError, match=f"{image.registry} cannot delete tags: it answers 400"
    ) as raised:
        delete(image)
    assert raised.value.hint
    assert OciRegistry(Always(None)).digest(image)


def test_registry_that_may_not_delete_says_so(proxy: FaultyProxy, image: ImageReference) -> None:
    answer(proxy, 405, "UNSUPPORTED")
    with pytest.raises(OperatorError, match="cannot delete tags: it answers 405"):
        delete(image)


@pytest.mark.parametrize("status", [200, 204, 500, 503])
def test_any_other_answer_is_an_error(
    proxy: FaultyProxy, image: ImageReference, status: int
) -> None:
    answer(proxy, status)
    with pytest.raises(TransientError):
        delete(image)


def test_refusal_is_a_permission_denied(proxy: FaultyProxy, image: ImageReference) -> None:
    answer(proxy, 403, "DENIED")
    with pytest.raises(
        PermissionDenied, match=f"No permission to delete from {image.repository}: .*403 DENIED"
    ):
        delete(image)


def test_reference_without_a_tag_is_a_mistake_of_the_caller(image: ImageReference) -> None:
    with pytest.raises(ValueError, match="has no tag"):
        delete(image.with_tag(None))
