"""Signatures by which workers know what workers wrote, and a service which tenant asks: HMAC-SHA-256
with a key that both sides have.

What is signed is the purpose and the fields, with a line end after each but the last; only the last
may have line ends in it. So a signature stands for one text and one purpose alone.
"""

import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagemill.errors import OperatorError
from imagemill.files.own import not_ours, own_file
from imagemill.files.tree import room

SHORTEST = 32
"""Characters of the shortest key. A key is text that nobody can guess, such as
`openssl rand -hex 32` prints.
"""

_HINT = "write a key of 32 characters or more, such as `openssl rand -hex 32` prints, in a line"


@dataclass(frozen=True)
class Keys:
    """The keys of one side. The first one signs, each is believed: so a new one is first added
    below, everywhere, and then put on top.
    """

    keys: tuple[bytes, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.keys or any(len(key) < SHORTEST for key in self.keys):
            raise OperatorError("A key for signatures is missing, or too short", _HINT)

    @classmethod
    def of(cls, *texts: str) -> "Keys":
        """Return the keys of these texts; `OperatorError` if there is none, or one is too short."""
        return cls(tuple(text.strip().encode() for text in texts if text.strip()))

    @classmethod
    def read(cls, path: Path) -> "Keys":
        """Return the keys in a file, one a line; `OperatorError` if they are not fit to be used."""
        content = own_file(path)
        if content is None:
            raise OperatorError(f"There is no file of keys {path}", _HINT)
        try:
            return cls.of(*content.decode(errors="replace").splitlines())
        except OperatorError as error:
            raise OperatorError(f"{path}: {error.message}", error.hint) from None

    def sign(self, purpose: str, *fields: str) -> str:
        """Return the signature of the fields, for one purpose."""
        return _signature(self.keys[0], purpose, fields)

    def signed(self, signature: str, purpose: str, *fields: str) -> bool:
        """Return whether one of the keys made the signature of just these fields."""
        return any(
            hmac.compare_digest(_signature(key, purpose, fields).encode(), signature.encode())
            for key in self.keys
        )


def _signature(key: bytes, purpose: str, fields: Sequence[str]) -> str:
    text = "\n".join((purpose, *fields))
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()


def own_keys(path: Path) -> Keys:
    """Return the key in a file that only this user reads; it is made up where there is none.

    Of several who make it at once, all get the same. Made by root in somebody's folder, it is
    theirs, since they are to read it as well. `OperatorError` if there is no room for it, and
    `PermissionDenied` where the folder is not to be written.
    """
    try:
        if not path.exists():
            with room(path.parent):
                _make(path)
    except OSError as error:
        raise not_ours("the key that it signs with", path.parent, error) from error
    return Keys.read(path)


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".unfinished-")
    try:
        with open(descriptor, "w") as file:  # noqa: PTH123 (mode 0600 from the beginning)
            file.write(secrets.token_hex(32) + "\n")
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.chown(unfinished, owner.st_uid, owner.st_gid)
        os.link(unfinished, path)
    except FileExistsError:
        pass  # somebody else was first
    finally:
        os.unlink(unfinished)  # noqa: PTH108 (a text)
