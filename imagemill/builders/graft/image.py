"""An image's manifest and config: which layers its last instructions have made, and the same image
with those layers made anew.

https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md. What is not ours to change stays
as it is, keys that we do not know included.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from imagemill.builders.graft import Refusal, recipe
from imagemill.builders.graft.recipe import Operation, Setting, WorkingFolder
from imagemill.encoding import json_value

_LAYERS = {
    "application/vnd.oci.image.manifest.v1+json": ("application/vnd.oci.image.layer.v1.tar", "+"),
    "application/vnd.docker.distribution.manifest.v2+json": (
        "application/vnd.docker.image.rootfs.diff.tar",
        ".",
    ),
}
"""Type of a manifest → type of its layers, where they are not compressed, and what comes before how
they are.
"""


_INLINE_CACHE = "moby.buildkit.cache.v0"
"""What a builder may take of the image, by the places of its layers, for contents of before."""

_OF_ONE_FILE = "imagemill: a layer of one large file"
_SETTLED = recipe.METADATA | {"ADD", "COPY", "WORKDIR"}


class Blob(NamedTuple):
    """A layer as a manifest and a config name it."""

    digest: str
    size: int
    diff_id: str
    packed: str = "gzip"
    """How it is compressed; empty where it is not."""


class Made(NamedTuple):
    """A manifest and a config that were made."""

    manifest: bytes
    digest: str
    config: bytes
    config_digest: str


@dataclass(frozen=True)
class Image:
    """An image in a registry, for one platform."""

    media_type: str
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]

    @classmethod
    def parse(cls, media_type: str, manifest: bytes) -> Self:
        """Read a manifest, without its config."""
        if media_type not in _LAYERS:
            raise Refusal("the earlier image is one for several platforms, or has attestations")
        document = _document(manifest)
        if not isinstance(document.get("layers"), list) or "digest" not in document.get(
            "config", {}
        ):
            raise Refusal("the earlier image has no manifest as we know them")
        return cls(media_type, document, {})

    def with_config(self, config: bytes) -> Self:
        """Return the same with its config, which has to fit the manifest."""
        image = type(self)(self.media_type, self.manifest, _document(config))
        layers = len(self.manifest["layers"])
        if len(image.diff_ids) != layers or sum(map(_has_layer, image.history)) != layers:
            raise Refusal("the earlier image does not say which instruction made which layer")
        return image

    @property
    def config_digest(self) -> str:
        """Of the config's blob."""
        return str(self.manifest["config"]["digest"])

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """Of all layers, the lowest first."""
        return tuple(self.config.get("rootfs", {}).get("diff_ids", ()))

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """What made the image, one entry an instruction."""
        return self.config.get("history") or ()

    @property
    def settings(self) -> Mapping[str, Any]:
        """What a container of the image is started with."""
        return self.config.get("config") or {}

    def blob(self, number: int) -> Blob:
        """Return a layer as it is named here."""
        layer = self.manifest["layers"][number]
        # By its end alone: Kaniko has layers of Docker's types in manifests of OCI, and the reverse.
        media_type = str(layer.get("mediaType", ""))
        packed = next((each for each in ("gzip", "zstd") if media_type.endswith(each)), "")
        return Blob(layer["digest"], layer["size"], self.diff_ids[number], packed)

    def layers_of(self, operations: Sequence[Operation]) -> tuple[int | None, ...]:
        """Return the number of the layer that each of the image's last instructions has made; None
        for one that made none.
        """
        entries = list(self.history)
        layer = len(self.diff_ids)
        found: list[int | None] = []
        for operation in reversed(operations):
            if not entries or not _says(entries[-1], operation.keyword):
                if not isinstance(operation, Setting | WorkingFolder):
                    raise Refusal("the earlier image does not tell of these instructions")
                found.append(None)  # Kaniko does not tell of what makes no layer
                continue
            made = _has_layer(entries.pop())
            layer -= made
            found.append(layer if made else None)
        return tuple(reversed(found))

    @property
    def is_buildkits(self) -> bool:
        """Whether its last instruction was BuildKit's, as far as the history says."""
        return bool(self.history) and str(self.history[-1].get("comment")).startswith("buildkit.")

    @property
    def last_copied(self) -> int:
        """The number of the first layer after which nothing has run, as far as the history says."""
        layer = len(self.diff_ids)
        for entry in reversed(self.history):
            if not any(_says(entry, keyword) for keyword in _SETTLED):
                break
            layer -= _has_layer(entry)
        return layer

    def commanded(self, keyword: str, old: Sequence[str], new: Sequence[str]) -> Self:
        """Return the same with other words in its last CMD or ENTRYPOINT, if the `old` ones became
        by our rules what they are.
        """
        name = keyword.capitalize()
        said = [n for n, entry in enumerate(self.history) if _says(entry, keyword)][-1:]
        shown = [self.history[n].get("created_by") for n in said]
        if self.settings.get(name) != list(old) or shown not in ([], [_shown(keyword, old)]):
            raise Refusal(f"the earlier image does not have its {keyword} as we read it")
        history = [
            {**entry, "created_by": _shown(keyword, new)} if n in said else entry
            for n, entry in enumerate(self.history)
        ]
        settings = {**self.settings, name: list(new)}
        config = {**self.config, "config": settings, "history": history}
        return type(self)(self.media_type, self.manifest, config)

    def unlabelled(self, names: Iterable[str], beneath: Mapping[str, str]) -> Self:
        """Return the same without these labels; those show again that the image `beneath` has."""
        labels = {**(self.settings.get("Labels") or {})}
        for name in names:
            labels.pop(name, None)
            labels |= {name: beneath[name]} if name in beneath else {}
        config = {**self.config, "config": {**self.settings, "Labels": labels}}
        return type(self)(self.media_type, self.manifest, config)

    def remade(
        self, layers: Mapping[int, Sequence[Blob]], labels: Mapping[str, str], at: float
    ) -> Made:
        """Return the image with some of its layers, by their numbers, replaced by one or more, and
        with these labels.

        `at` is when, in seconds since 1970.
        """
        created = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
        diff_ids: list[str] = []
        descriptors: list[Mapping[str, Any]] = []
        history: list[Mapping[str, Any]] = []
        numbers = iter(range(len(self.diff_ids)))
        for entry in self.history:
            number = next(numbers) if _has_layer(entry) else None
            if number is None or number not in layers:
                history.append(entry)
            else:
                history.append({**entry, "created": created})
                more = len(layers[number]) - 1
                history += more * [{**entry, "created": created, "comment": _OF_ONE_FILE}]
                diff_ids += [blob.diff_id for blob in layers[number]]
                descriptors += [self._descriptor(blob) for blob in layers[number]]
                continue
            if number is not None:
                diff_ids.append(self.diff_ids[number])
                descriptors.append(self.manifest["layers"][number])
        settings = {**self.settings, "Labels": {**(self.settings.get("Labels") or {}), **labels}}
        config = _bytes(
            {
                **{name: kept for name, kept in self.config.items() if name != _INLINE_CACHE},
                "config": settings,
                "created": created,
                "history": history,
                "rootfs": {**self.config["rootfs"], "diff_ids": diff_ids},
            }
        )
        named = {**self.manifest["config"], "size": len(config), "digest": _digest(config)}
        manifest = _bytes({**self.manifest, "config": named, "layers": descriptors})
        return Made(manifest, _digest(manifest), config, named["digest"])

    def _descriptor(self, blob: Blob) -> dict[str, Any]:
        media_type, separator = _LAYERS[self.media_type]
        if blob.packed:
            media_type += separator + blob.packed
        return {"mediaType": media_type, "size": blob.size, "digest": blob.digest}


def _says(entry: Mapping[str, Any], keyword: str) -> bool:
    """Whether it was an instruction of this kind: not as the classic builder tells of it, with
    digests of what was copied.
    """
    words = str(entry.get("created_by", "")).split(maxsplit=1)
    return bool(words) and words[0].upper() == keyword


def _shown(keyword: str, words: Sequence[str]) -> str:
    """How BuildKit tells of a command."""
    quoted = " ".join(f'"{word}"' for word in words)
    return f"{keyword} [{quoted}]"


def _has_layer(entry: Mapping[str, Any]) -> bool:
    return not entry.get("empty_layer", False)


def _document(text: bytes) -> dict[str, Any]:
    try:
        document = json_value(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Refusal("the earlier image has a manifest or config that is no JSON object")
    return document


def _bytes(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
