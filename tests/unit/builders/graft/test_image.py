"""An image with layers that were made anew."""

import json

from imagemill.builders.graft.image import Blob, Image

OCI = "application/vnd.oci.image.manifest.v1+json"


def test_labels_that_are_taken_away_show_those_of_the_image_beneath() -> None:
    config = {"config": {"Labels": {"a": "1", "b": "2", "c": "3"}, "User": "4"}}
    image = Image(OCI, {}, config).unlabelled(["a", "b", "d"], {"b": "5", "c": "6"})
    assert image.settings == {"Labels": {"b": "5", "c": "3"}, "User": "4"}


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
