"""What a part of a build (its context, its credentials, its secrets) needs in the executor's
pod.
"""

from dataclasses import dataclass
from typing import Any, Self

from imagemill.builders.kaniko.overlay import Document

FOLDER = "/kaniko"
"""The executor's own folder: what is mounted below it never ends up in an image, nor in the way of
one.
"""


@dataclass(frozen=True)
class Equipment:
    """Additions to the executor's container, and to its pod."""

    arguments: tuple[str, ...] = ()
    env: tuple[Document, ...] = ()
    mounts: tuple[Document, ...] = ()
    volumes: tuple[Document, ...] = ()

    def __add__(self, other: Self) -> "Equipment":
        return Equipment(
            self.arguments + other.arguments,
            self.env + other.env,
            self.mounts + other.mounts,
            self.volumes + other.volumes,
        )


def literal(text: str) -> str:
    """Return the text as Kubernetes leaves it: in arguments and variables `$(NAME)` is a reference,
    and `$$` one dollar.
    """
    return text.replace("$", "$$")


def variable(name: str, value: str) -> Equipment:
    """Return an environment variable; never for a secret."""
    return Equipment(env=({"name": name, "value": literal(value)},))


def secret_variable(name: str, secret: str, key: str) -> Equipment:
    """Return an environment variable with a Secret's value, which only the kubelet reads."""
    return Equipment(
        env=({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}},)
    )


def volume(name: str, path: str, source: Document, part: str = "") -> Equipment:
    """Return a volume that is mounted read-only; `part`: only this folder or file of it."""
    mount = {"name": name, "mountPath": path, "readOnly": True}
    return Equipment(
        mounts=(mount | ({"subPath": part} if part else {}),),
        volumes=({"name": name, **source},),
    )


def secret_volume(
    name: str, path: str, secret: str, items: dict[str, str] | None = None
) -> Equipment:
    """Return a Secret as a folder; `items`: its keys and the files that they become, default: all,
    as they are called.
    """
    source: dict[str, Any] = {"secretName": secret, "defaultMode": 0o400}
    if items is not None:
        source["items"] = [{"key": key, "path": file} for key, file in items.items()]
    return volume(name, path, {"secret": source})
