"""One image for several platforms: an index over the images of each.

https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md; Docker's own form of it,
the manifest list, has the same fields.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from imagemill.errors import TransientError
from imagemill.reference import ImageReference
from imagemill.registries.blobs import Blobs, StoredManifest
from imagemill.registries.oci import INDEX, INDEXES, MANIFEST_LIST

Descriptor = dict[str, Any]


def push(blobs: Blobs, target: ImageReference, images: Mapping[str, ImageReference]) -> str:
    """Store the index of the images by platform, which are in the repository of `target`, under
    its tag; return the digest. Equal images give an equal index.
    """
    entries = [
        entry
        for platform, image in sorted(images.items())
        for entry in _entries(blobs, platform, image)
    ]
    of_docker = all("docker" in entry["mediaType"] for entry in entries)
    media_type = MANIFEST_LIST if of_docker else INDEX
    index = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
    body = json.dumps(index, separators=(",", ":")).encode()
    digest = _digest(body)
    blobs.put_manifest(target, StoredManifest(media_type, body), digest)
    return digest


def _entries(blobs: Blobs, platform: str, image: ImageReference) -> Iterator[Descriptor]:
    """Yield what an index says of an image: of one that is an index itself, what that says."""
    manifest = blobs.manifest(image)
    if manifest is None or _digest(manifest.body) != image.digest:
        raise TransientError(f"{image} is not in the registry any more", "build it again")
    if manifest.media_type in INDEXES:
        yield from json.loads(manifest.body)["manifests"]
        return
    system, architecture, *variant = platform.split("/")
    yield {
        "mediaType": manifest.media_type,
        "digest": image.digest,
        "size": len(manifest.body),
        "platform": {"architecture": architecture, "os": system}
        | ({"variant": variant[0]} if variant else {}),
    }


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
