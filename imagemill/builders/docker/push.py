"""Reads what `docker push` prints, and tells why a push failed.

The engine itself writes the line with the digest, in all its versions; the CLI only hands it on:
https://github.com/moby/moby/blob/master/daemon/containerd/image_push.go.
"""

import math
import re
import time
from collections.abc import Callable

from imagemill.builders.docker.progress import size_of
from imagemill.builders.engine_failures import (
    IMMUTABLE_TAG,
    Doing,
    engine_failure,
    engine_lost,
    registry_failure,
)
from imagemill.errors import ImagemillError, OperatorError, TransientError
from imagemill.meter import rate
from imagemill.reference import ImageReference
from imagemill.text import amount, shortened, without_escapes

_DIGEST = re.compile(r"(?P<tag>\S+): digest: (?P<digest>sha256:[0-9a-f]{64}) size: \d+$")
_UNDERWAY = re.compile(r"[0-9a-f]+: (?:Preparing|Waiting)$")
_LAYER = re.compile(
    r"([0-9a-f]{12}): (?:Preparing|Waiting|(Pushed|Layer already exists|Mounted from .*))$"
)
_BYTES = re.compile(
    r"([0-9a-f]{12}): Pushing +(?:\[.*\])? *([\d.]+ ?[kMG]?B)(?:/([\d.]+ ?[kMG]?B))?"
)
"""What a terminal is shown: https://github.com/moby/moby/blob/master/pkg/jsonmessage/jsonmessage.go."""
_NO_TAG = re.compile(r"tag does not exist|does not exist locally|No such image", re.IGNORECASE)

# As distribution says it of a layer whose record another push to the repository writes at that
# moment, or that its garbage collection has taken; seen with distribution 2.8 on a filesystem.
_LAYER_GONE = re.compile(
    r"manifest blob unknown|blob unknown to registry|digest invalid|provided digest did not match"
)


class PushLog:
    """What `docker push` has said: the `digest` if it is done, and its `last` word."""

    def __init__(
        self,
        log: Callable[[str], None],
        amount: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._amount, self._clock = log, amount, clock
        self._layers: dict[str, bool] = {}
        """Layer → whether the registry has it."""
        self._bytes: dict[str, tuple[float, float]] = {}
        """Layer that is sent → bytes that have gone, and all."""
        self._begun = math.inf
        self.digest: str | None = None
        self.last = ""

    @property
    def tag_is_gone(self) -> bool:
        """Whether the engine has no image of that name (any more)."""
        return self.digest is None and _NO_TAG.search(self.last) is not None

    @property
    def tag_is_kept(self) -> bool:
        """Whether the registry has an image of that name, which it does not let anybody change (as
        ECR says it).
        """
        return self.digest is None and IMMUTABLE_TAG.search(self.last) is not None

    def read(self, line: str) -> None:
        """Take the next line of the output."""
        line = without_escapes(line).rstrip()
        if not line:
            return
        if match := _BYTES.match(line):
            self._bytes[match[1]] = size_of(match[2]), size_of(match[3] or match[2])
            return self._tell()
        self.last = line
        if match := _DIGEST.match(line):
            self.digest = match["digest"]
        if layer := _LAYER.match(line):
            self._layers[layer[1]] = layer[2] is not None
            if layer[2] and layer[1] in self._bytes:
                whole = self._bytes[layer[1]][1]
                self._bytes[layer[1]] = whole, whole
            self._tell()
        if not _UNDERWAY.match(line):
            self._log(line)

    def _tell(self) -> None:
        """Say how far it has come."""
        layers = f"{sum(self._layers.values())} of {len(self._layers)} layers"
        if not self._bytes:
            self._amount(f"{layers} pushed")
            return
        done, whole = map(sum, zip(*self._bytes.values(), strict=True))
        self._begun = min(self._begun, self._clock())
        fast = rate(done, self._clock() - self._begun)
        # What matters most comes first, since a narrow terminal cuts the rest.
        self._amount(f"{amount(int(done))} of {amount(int(whole))} pushed{fast}, {layers}")


def push_failure(text: str, image: ImageReference, host: str) -> ImagemillError:
    """Return the error for a push to `image` from the engine at `host` that ended with `text`."""
    if _NO_TAG.search(text):
        return TransientError(
            f"Other builds took the tag {image} away from the Docker engine, again and again",
            "build the same image once at a time",
        )
    if _LAYER_GONE.search(text):
        return TransientError(
            f"Pushing to {image.repository} failed: {image.registry} does not find a layer that it was just given"
            f" ({shortened(text)})",
            "see the log of the registry: other pushes to the repository or its garbage collection may have been in the"
            " way",
        )
    return (
        engine_failure(text, host)
        or registry_failure(text, Doing(f"Pushing to {image.repository}", image.registry))
        or engine_lost(text, host)
        or OperatorError(
            f"Pushing to {image.repository} failed: {shortened(text)}",
            "see the log of the registry",
        )
    )
