"""What base images are is asked of their registries; no answer is an error, and no such image is
told.
"""

import threading
from dataclasses import dataclass, field

import pytest

from imagemill.base_digests import digests
from imagemill.errors import BuildCancelled, PermissionDenied, ServiceUnreachable
from imagemill.ports import Quiet
from imagemill.reference import ImageReference

DIGEST = f"sha256:{'1' * 64}"


@dataclass
class Answers:
    """A registry that answers as it is told to."""

    answer: str | Exception | None
    asked: list[str] = field(default_factory=list)

    def digest(self, reference: ImageReference) -> str | None:
        self.asked.append(str(reference))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def ask(registry: Answers, *images: str) -> tuple[dict[str, str], list[str]]:
    quiet = Quiet()
    found = digests(images, lambda _: registry, None, quiet)  # type: ignore[arg-type,return-value]
    return dict(found), quiet.lines


def test_the_digest_is_that_of_the_registry_and_no_tag_is_latest() -> None:
    registry = Answers(DIGEST)
    assert ask(registry, "r.io/base", "python:3") == (
        {"r.io/base": DIGEST, "python:3": DIGEST},
        [],
    )
    assert sorted(registry.asked) == ["docker.io/library/python:3", "r.io/base:latest"]


def test_a_registry_that_does_not_answer_is_an_error() -> None:
    with pytest.raises(ServiceUnreachable) as raised:
        ask(Answers(ServiceUnreachable("gone", "wait", 3.0)), "r.io/base:1")
    assert raised.value.retry_after == 3.0
    assert raised.value.hint.startswith("wait; ")
    assert "builder.base-digests: false" in raised.value.hint


@pytest.mark.parametrize("answer", [None, PermissionDenied("no", "log in")])
def test_an_image_that_is_not_there_for_us_counts_by_its_name(
    answer: PermissionDenied | None,
) -> None:
    found, lines = ask(Answers(answer), "r.io/base:1")
    assert found == {}
    assert len(lines) == 1
    assert "r.io/base:1" in lines[0]
    assert ("(no)" in lines[0]) == (answer is not None)


def test_who_is_not_to_go_on_does_not_wait_for_an_answer() -> None:
    asked, over = threading.Event(), threading.Event()

    class Silent:
        def digest(self, _: ImageReference) -> None:
            asked.set()
            over.wait(30)

    class Cancelled(Quiet):
        def check(self) -> None:
            if asked.is_set():
                raise BuildCancelled("somebody has cancelled the build")

    with pytest.raises(BuildCancelled):
        digests(["r.io/base:1"], lambda _: Silent(), None, Cancelled())  # type: ignore[arg-type,return-value]
    over.set()


def test_no_images_ask_nobody() -> None:
    registry = Answers(DIGEST)
    assert ask(registry) == ({}, [])
    assert registry.asked == []
