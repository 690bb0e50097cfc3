"""What is read of an image that a builder has made, and what of it gets layers of its own."""

import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import fakeredis
import pytest

from imagemill.builders.graft import Refusal, recipe
from imagemill.builders.graft.copying import Placed
from imagemill.builders.graft.grafting import Graft, GraftPlace, Question, note
from imagemill.builders.graft.image import Blob
from imagemill.builders.graft.large_files import LARGE, MOST_LAYERS
from imagemill.builders.graft.layers import Node
from imagemill.builders.graft.packing import store
from imagemill.context import Entry, Manifest
from imagemill.context.manifest import Dockerfile
from imagemill.errors import PermissionDenied, TransientError
from imagemill.ports import BuildInputs, Quiet
from imagemill.reference import ImageReference
from imagemill.registries import blobs_for
from imagemill.registries.blobs import Blobs
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import OciRegistry
from imagemill.state.grafts import Earlier, Grafts, RedisShelf
from imagemill.why.record import DockerfileInput, InputRecord
from registry_server import RegistryServer, registry_server
from web import Response

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with registry_server() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path) -> GraftPlace:
    config = DockerConfig(tmp_path / "none")
    grafts = Grafts(RedisShelf(fakeredis.FakeRedis(), ""))
    return GraftPlace(lambda image: blobs_for(image.registry, config), grafts, tmp_path)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def content(files: Mapping[str, bytes], path: bytes) -> Iterator[bytes]:
    return iter([files[path.decode()]])


def pushed(
    registry: RegistryServer, *layers: Mapping[str, bytes], volumes: tuple[str, ...] = ()
) -> str:
    """An image whose layers were all copied, not by BuildKit: its reference."""
    repository = registry.repositories.setdefault("app", registry._repository("app"))
    made: list[Blob] = []
    for files in layers:
        out = io.BytesIO()
        nodes = {
            path: Placed(
                Node("file", 0o644, 0, 0, "", len(text), sha256(text)),
                Entry("file", path.encode()),
            )
            for path, text in files.items()
        }
        made.append(store(nodes, partial(content, files), out))
        repository.blobs[made[-1].digest] = out.getvalue()
    config = {
        "rootfs": {"diff_ids": [blob.diff_id for blob in made]},
        "history": [{"created_by": "COPY x"} for _ in made],
        "config": {"Volumes": {path: {} for path in volumes}},
    }
    text = json.dumps(config).encode()
    repository.blobs[f"sha256:{sha256(text)}"] = text
    manifest = json.dumps(
        {
            "config": {"digest": f"sha256:{sha256(text)}"},
            "layers": [{"digest": blob.digest, "size": blob.size} for blob in made],
        }
    ).encode()
    repository.manifests[f"sha256:{sha256(manifest)}"] = MANIFEST, manifest
    return f"{registry.address}/app@sha256:{sha256(manifest)}"


def earlier(image: str, *contents: bytes) -> Earlier:
    entries = [
        Entry("file", str(number).encode(), len(content), sha256(content)[:16])
        for number, content in enumerate(contents)
    ]
    return Earlier(image, (), InputRecord(DockerfileInput("Dockerfile", "1"), tuple(entries)))


def test_large_files_of_the_source_get_layers_and_those_of_dependencies_do_not(
    registry: RegistryServer, place: GraftPlace
) -> None:
    weights, library = bytes(LARGE), bytes(LARGE + 1)
    image = pushed(registry, {"venv/libtorch.so": library}, {"app/weights": weights, "app/a": b"1"})
    before = set(registry.repositories["app"].blobs)
    note(earlier(image, weights, b"1"), "key", place, Quiet())
    (made,) = set(registry.repositories["app"].blobs) - before
    assert place.known.find_image("key") is not None
    assert len(registry.repositories["app"].blobs[made]) < LARGE / 100  # of zeros


def test_no_more_files_get_layers_than_an_image_has_room_for_the_largest_first(
    registry: RegistryServer, place: GraftPlace
) -> None:
    weights, larger = bytes(LARGE), bytes(LARGE + 1)
    small = ({str(number): b"1"} for number in range(MOST_LAYERS - 2))
    image = pushed(registry, *small, {"app/a": weights, "app/b": larger})
    before = set(registry.repositories["app"].blobs)
    note(earlier(image, weights, larger), "key", place, Quiet())
    (made,) = set(registry.repositories["app"].blobs) - before
    content = zlib.decompress(registry.repositories["app"].blobs[made], wbits=31)
    assert content.startswith(b"app/b\0")


def test_a_layer_that_has_one_large_file_alone_is_the_layer_of_that_file(
    registry: RegistryServer, place: GraftPlace
) -> None:
    weights = bytes(LARGE)
    note(earlier(pushed(registry, {"0": weights}), weights), "key", place, Quiet())
    blobs = registry.repositories["app"].blobs
    assert [len(blob) > LARGE for blob in blobs.values()].count(True) == 1
    assert len(blobs) == 2  # and the config
    (name,) = (digest for digest in blobs if len(blobs[digest]) > LARGE)
    assert sent_by(registry, place, weights).digest == name


def test_large_files_of_another_tenant_are_not_taken(
    registry: RegistryServer, place: GraftPlace
) -> None:
    weights = bytes(LARGE)
    note(earlier(pushed(registry, {"0": weights}), weights), "key", place, Quiet())
    found = sent_by(registry, replace(place, tenant="another"), weights)
    assert found.size < LARGE / 100
    assert found.digest not in registry.repositories["app"].blobs


def sent_by(registry: RegistryServer, place: GraftPlace, weights: bytes) -> Blob:
    """The layer of the weights in another repository."""
    target = ImageReference.parse(f"{registry.address}/other")
    node = Node("file", 0o644, 0, 0, "", len(weights), sha256(weights))
    large = place.large_files(target, place.registries(target), Quiet())
    found = large.layer("0", {"0": Placed(node, Entry("file", b"0"))}, lambda _: iter([weights]))
    assert found.digest in registry.repositories["other"].blobs
    return found


class Prepared(OciRegistry):
    """Credentials for a registry in which repositories have to be made."""

    def __init__(self, registry: RegistryServer, config: DockerConfig) -> None:
        super().__init__(config)
        self._server = registry

    def prepare(self, repository: ImageReference) -> None:
        self._server.absent.discard(repository.path)


def test_a_repository_is_made_where_the_registry_wants_that(
    registry: RegistryServer, place: GraftPlace, tmp_path: Path
) -> None:
    made = earlier(pushed(registry, {"lib": b"1"}, {"0": b"1"}), b"1")
    registry.absent.add("new")
    adapter = Prepared(registry, DockerConfig(tmp_path / "none"))
    place = replace(place, registries=lambda _: Blobs(adapter))
    digest = grafted(registry, place, made, "new")
    assert digest in registry.repositories["new"].manifests


@pytest.mark.parametrize("at", [3, 10_000], ids=["header", "content"])
def test_a_layer_that_comes_in_another_content_the_second_time_is_refused(
    registry: RegistryServer, place: GraftPlace, at: int
) -> None:
    weights = bytes(LARGE)
    image = pushed(registry, {"app/weights": weights, "app/a": b"1"})
    note(earlier(image), "key", place, Quiet())  # reads it, and has no use for it
    for digest, content in registry.repositories["app"].blobs.items():
        if len(content) > LARGE:
            damaged = content[:at] + b"damaged" + content[at + 7 :]
            registry.repositories["app"].blobs[digest] = damaged
    with pytest.raises(Refusal, match=r"another content|cannot be read"):
        note(earlier(image, weights), "another", place, Quiet())
    assert place.known.find_image("another") is None


def test_a_manifest_or_config_that_is_not_what_its_digest_says_is_not_worked_with(
    registry: RegistryServer, place: GraftPlace
) -> None:
    image = pushed(registry, {"app/a": b"1"})
    repository = registry.repositories["app"]
    (digest,) = repository.manifests
    config = next(each for each in repository.blobs if b"history" in repository.blobs[each])
    kept = repository.blobs[config], repository.manifests[digest]
    repository.blobs[config] = kept[0].replace(b"COPY x", b"COPY y")
    with pytest.raises(TransientError, match="damaged"):
        note(earlier(image), "key", place, Quiet())
    repository.blobs[config] = kept[0]
    repository.manifests[digest] = MANIFEST, kept[1][1] + b" "
    with pytest.raises(TransientError, match="damaged"):
        note(earlier(image), "key", place, Quiet())


def test_what_a_registry_did_not_let_us_read_is_told_until_it_does(
    registry: RegistryServer, place: GraftPlace
) -> None:
    made = earlier(pushed(registry, {"app/a": b"1"}))
    registry.faults = [Response(403, body=b'{"errors": [{"code": "DENIED"}]}')]
    with pytest.raises(PermissionDenied):
        note(made, "key", place, Quiet())
    assert f"the image {made.image} could not be read" in (place.known.find_refusal("key") or "")
    note(made, "key", place, Quiet())
    assert place.known.find_refusal("key") is None


@pytest.mark.parametrize("volumes", [(), ("/data",)])
def test_where_another_builder_has_volumes_no_image_is_made_of_its_own(
    registry: RegistryServer, place: GraftPlace, volumes: tuple[str, ...]
) -> None:
    made = earlier(pushed(registry, {"0": b"1"}, volumes=volumes), b"1")
    if not volumes:
        assert grafted(registry, place, made, "app") in registry.repositories["app"].manifests
        return
    with pytest.raises(Refusal, match="volumes"):
        grafted(registry, place, made, "app")


def grafted(registry: RegistryServer, place: GraftPlace, made: Earlier, repository: str) -> str:
    """The digest of an image in which the file `0` is another one."""
    note(made, "key", place, Quiet())
    found = recipe.read("FROM scratch\nCOPY 0 /\n", None)
    inputs = BuildInputs(ImageReference.parse(f"{registry.address}/{repository}:2"))
    new = Manifest(Dockerfile("Dockerfile", "1"), (Entry("file", b"0", 1, sha256(b"2")),))
    graft = Graft(place, inputs, Question("key", found, {}), Quiet())
    return graft.make(made, new, lambda _: iter([b"2"]), 0, lambda: None)
