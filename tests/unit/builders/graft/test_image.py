"""An image with layers that were made anew."""

import json

import pytest

from imagemill.builders.graft import Refusal
from imagemill.builders.graft.image import Blob, Image
from imagemill.builders.graft.recipe import Copy

OCI = "application/vnd.oci.image.manifest.v1+json"


def test_labels_that_are_taken_away_show_those_of_the_image_beneath() -> None:
    config = {"config": {"Labels": {"a": "1", "b": "2", "c": "3"}, "User": "4"}}
    image = Image(OCI, {}, config).unlabelled(["a", "b", "d"], {"b": "5", "c": "6"})
    assert image.settings == {"Labels": {"b": "5", "c": "3"}, "User": "4"}


@pytest.mark.parametrize("packed", ["", "gzip", "zstd"])
@pytest.mark.parametrize(
    "media_type", ["oci.image.manifest.v1+json", "docker.distribution.manifest.v2+json"]
)
def test_a_layer_is_named_again_as_it_was(media_type: str, packed: str) -> None:
    """The names: https://github.com/opencontainers/image-spec/blob/v1.1.1/media-types.md"""
    kind = "oci.image.layer.v1.tar+" if "oci" in media_type else "docker.image.rootfs.diff.tar."
    name = f"application/vnd.{kind}{packed}".rstrip("+.")
    layer = {"mediaType": name, "size": 1, "digest": "sha256:1"}
    config = {"rootfs": {"diff_ids": ["sha256:2"]}, "history": [{"created_by": "COPY a /"}]}
    image = Image(f"application/vnd.{media_type}", {"config": {}, "layers": [layer]}, config)
    blob = image.blob(0)
    assert blob == Blob("sha256:1", 1, "sha256:2", packed)
    assert json.loads(image.remade({0: [blob]}, {}, 0).manifest)["layers"] == [layer]


def test_a_layer_of_another_kind_of_manifest_is_named_as_this_one_has_it() -> None:
    name = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    layer = {"mediaType": name, "size": 1, "digest": "sha256:1"}
    config = {"rootfs": {"diff_ids": ["sha256:2"]}, "history": [{"created_by": "COPY a /"}]}
    image = Image(OCI, {"config": {}, "layers": [layer]}, config)
    (made,) = json.loads(image.remade({0: [image.blob(0)]}, {}, 0).manifest)["layers"]
    assert made["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"


@pytest.mark.parametrize(
    ("told", "understood"),
    [("COPY . . # buildkit", True), ("/bin/sh -c #(nop) COPY dir:123 in /app ", False)],
)
def test_a_history_with_digests_of_what_was_copied_is_no_one_to_go_by(
    told: str, understood: bool
) -> None:
    config = {"rootfs": {"diff_ids": ["sha256:2"]}, "history": [{"created_by": told}]}
    image = Image(OCI, {"layers": [{}]}, config)
    copied = Copy(1, "COPY", (".",), ".")
    if understood:
        assert image.layers_of([copied]) == (0,)
        return
    with pytest.raises(Refusal, match="does not tell"):
        image.layers_of([copied])


def test_what_a_builder_may_take_from_it_by_the_places_of_its_layers_is_gone() -> None:
    config = {
        "rootfs": {"type": "layers", "diff_ids": ["sha256:1", "sha256:2"]},
        "history": [{"created_by": "RUN x"}, {"created_by": "COPY . ."}],
        "moby.buildkit.cache.v0": "e30=",
        "another": 1,
    }
    layers = [{"digest": "sha256:3"}, {"digest": "sha256:4"}]
    image = Image(
        OCI,
        {"config": {"digest": "sha256:5"}, "layers": layers},
        config,
    )
    made = json.loads(image.remade({1: [Blob("sha256:6", 1, "sha256:7")]}, {}, 0).config)
    assert "moby.buildkit.cache.v0" not in made
    assert made["another"] == 1
    assert made["rootfs"]["diff_ids"] == ["sha256:1", "sha256:7"]
