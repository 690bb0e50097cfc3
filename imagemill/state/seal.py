"""The seal on what workers tell each other by way of Redis and the broker: it shows that a worker
wrote it, and that nobody has changed it since.

Nothing but the worker's own keys is believed: the operator's, or those of its state folder, which all
workers of the folder share. See docs/adr/0026-what-workers-believe.md.
"""

import hashlib

from imagemill.errors import OperatorError
from imagemill.signing import Keys


class BrokenSealError(OperatorError):
    """What was read is not what a worker wrote."""

    def __init__(self, message: str = "", hint: str = "") -> None:
        super().__init__(
            message or "What Redis holds of the build is not what a worker wrote",
            hint
            or "see who else may write to Redis, and that all workers have the same"
            " IMAGEMILL_SIGNING_KEYS",
        )


class Seal:
    """Seals texts, and opens them again."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._fingerprints = [fingerprint(key) for key in keys.keys]
        self.fingerprint = self._fingerprints[0]
        """What the key that seals is told apart by."""

    def knows(self, name: str) -> bool:
        """Return whether what is sealed with the key of this fingerprint is believed."""
        return name in self._fingerprints

    def close(self, purpose: str, build: str, text: str) -> str:
        """Return the text under a seal, for one purpose and one build."""
        return f"{self.fingerprint}.{self._keys.sign(purpose, build, text)}\n{text}"

    def open(self, purpose: str, build: str, sealed: str) -> str:
        """Return the text; `BrokenSealError` if no worker sealed just this. It is not read before."""
        mark, _, text = sealed.partition("\n")
        name, _, signature = mark.partition(".")
        if self.knows(name) and self._keys.signed(signature, purpose, build, text):
            return text
        raise BrokenSealError


def fingerprint(key: bytes) -> str:
    """Return what a key is told apart by; it tells nothing of the key."""
    return hashlib.sha256(b"imagemill-fingerprint\n" + key).hexdigest()[:16]
