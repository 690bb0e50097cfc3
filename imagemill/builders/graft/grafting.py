"""Finds an earlier image that differs in the code alone, and makes the new one of it."""

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from imagemill.builders.graft import FORMAT, Refusal, bases, recipe
from imagemill.builders.graft.bases import Base, Open
from imagemill.builders.graft.copying import Context, Placed
from imagemill.builders.graft.image import Blob, Image
from imagemill.builders.graft.large_files import MOST_LAYERS, LargeFiles
from imagemill.builders.graft.layers import FileView, Layer, read_layer
from imagemill.builders.graft.packing import Read, is_archive, pack
from imagemill.builders.graft.proof import Suffix, remade
from imagemill.builders.graft.recipe import CodeRecipe, Commands, folder_after
from imagemill.context import Entries, Manifest
from imagemill.context.hashing import Inputs
from imagemill.dockerfile.images import FRONTEND
from imagemill.errors import OperatorError, TransientError
from imagemill.meter import Meter
from imagemill.ports import BuildInputs, Progress
from imagemill.reference import ImageReference
from imagemill.registries.blobs import Blobs, StoredManifest
from imagemill.state.grafts import Earlier, Grafts

UNKNOWN = "no image is known that differs from this one in its code alone"
"""Why the builder builds the first image of its kind."""

_CHUNK = 1 << 20

MOST_READ_AT_ONCE = 64 << 20
"""Compressed bytes of layers that are read on the way; more are read when no build waits for it."""


Layers = Mapping[int, Mapping[str, Placed]]
"""Number of a layer → what is in it, by path."""


@dataclass(frozen=True)
class Question:
    """A build of which the code may be all that is new."""

    key: str
    """What all but the code is known by: equal ones make equal images, up to the suffix."""
    recipe: CodeRecipe
    base_digests: Mapping[str, str]
    """Of the images that stages stand on, by their names."""


@dataclass(frozen=True)
class GraftPlace:
    """Where images are looked for and made."""

    registries: Open
    known: Grafts
    scratch: Path
    tenant: str | None = None
    """Whose images they are: nothing is made of those of another one."""

    def none_known(self, key: str) -> Refusal:
        """Return why there is no image to start from, where none is known for the key."""
        return Refusal(self.known.find_refusal(key) or UNKNOWN)

    def large_files(self, target: ImageReference, blobs: Blobs, progress: Progress) -> LargeFiles:
        """Return the layers of single files that the registry of `target` has."""
        return LargeFiles(target, blobs, self.known, self.scratch, progress, self.tenant)


def question(
    manifest: Manifest,
    inputs: BuildInputs,
    given: Inputs,
    builder: str,
    place: GraftPlace,
    known: Mapping[str, str] | None = None,
) -> Question:
    """Return what is to be looked for; `Refusal` where the code cannot be told from the rest.

    `given` is what the image is made from besides the context, `builder` the type of the builder,
    `known` has digests of base images that were asked for already.
    Where there are build secrets, which may be in what was installed, images of another repository
    are never taken.
    """
    text = manifest.dockerfile.content.decode(errors="surrogateescape")
    if frontend := given.build_args.get(FRONTEND):
        recipe.check_frontend(frontend)
    found = recipe.read(text, given.target, given.build_args)
    context = Context(manifest.entries)
    parts = (part for pattern in found.read_before for part in context.seen(pattern))
    seen = sorted({line for part in parts for line in part.lines()})
    known = known or {}
    digests = {
        name: known.get(name) or bases.digest(name, place.registries) for name in found.images
    }
    # Labels of the request are given to the new image; of others only the builder knows.
    labels = {name: text for name, text in given.labels.items() if name not in inputs.labels}
    everything = {
        **asdict(replace(given, labels=labels)),
        "format": FORMAT,
        "dockerfile": found.shape(text),
        "builder": builder,
        "registry": inputs.image.repository if given.secrets else inputs.image.registry,
        "tenant": place.tenant,
        "bases": digests,
        "seen": hashlib.sha256("\n".join(seen).encode()).hexdigest(),
    }
    key = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
    return Question(key, found, {name: digests[name] for name in found.bases})


@dataclass(frozen=True)
class Graft:
    """One attempt to make `inputs.image` of an earlier image."""

    place: GraftPlace
    inputs: BuildInputs
    question: Question
    progress: Progress

    def make(
        self,
        earlier: Earlier,
        new: Manifest,
        source: Read,
        at: float,
        pushing: Callable[[], None],
    ) -> str:
        """Make the image and push it under its tag; returns its digest.

        `at` is when the build began; `pushing` is called before anything is sent.
        """
        image, layers = self.prove(earlier, new, source)
        pushing()
        blobs = self.place.registries(self.inputs.image)
        sent = self._push_layers(image, ImageReference.parse(earlier.image), layers, source, blobs)
        return self._push_image(image, sent, at, blobs)

    def prove(self, earlier: Earlier, new: Manifest, source: Read) -> tuple[Image, Layers]:
        """Return the earlier image, and what its layers are to be that are made anew; nothing is
        sent. `Refusal` where that cannot be known.
        """
        reference = ImageReference.parse(earlier.image)
        blobs = self.place.registries(self.inputs.image)
        try:
            image = find(reference, blobs)
        except Refusal:
            self.place.known.forget_image(self.question.key)
            raise
        base = self._base(image)
        suffix, places, below = self._suffix(image, base, reference, blobs)
        image = _commanded(image, earlier.commands, self.question.recipe.commands)
        image = self._unlabelled(image, earlier, base)
        made = remade(
            below,
            suffix,
            Context(earlier.record.entries),
            Context(new.entries),
            lambda entry: is_archive(next(source(entry.path), b"")),
        )
        changed = [each for each in zip(places, made, strict=True) if each[1] is not None]
        if missing := [number for number, _ in changed if number is None]:
            raise Refusal(f"{len(missing)} instructions have made no layer before")
        return image, {
            number: changes
            for number, changes in changed
            if number is not None and changes is not None
        }

    def _first(self, image: Image) -> int:
        """Return the number of the first layer that is the suffix's."""
        places = image.layers_of(self.question.recipe.operations)
        return min((n for n in places if n is not None), default=len(image.diff_ids))

    def _suffix(
        self, image: Image, base: Base, reference: ImageReference, blobs: Blobs
    ) -> tuple[Suffix, tuple[int | None, ...], FileView]:
        if not image.is_buildkits and image.settings.get("Volumes"):
            raise Refusal("there are volumes, and this builder leaves out what is copied into one")
        operations = self.question.recipe.by(base.user)
        places = image.layers_of(operations)
        first = self._first(image)
        if image.diff_ids[: len(base.diff_ids)] != base.diff_ids or len(base.diff_ids) > first:
            raise Refusal(f"the base image {self.question.recipe.base} is another one by now")
        layers = read_layers(
            image, reference, blobs, self.place.known, self.progress, MOST_READ_AT_ONCE
        )
        below = FileView()
        for layer in layers[:first]:
            below.apply(layer)
        of_operations = tuple(None if n is None else layers[n] for n in places)
        folder = folder_after(self.question.recipe.working_folders, base.working_folder)
        return Suffix(operations, of_operations, folder, image.is_buildkits), places, below

    def _base(self, image: Image) -> Base:
        config = image.config
        platform = "/".join(
            filter(None, (config.get("os"), config.get("architecture"), config.get("variant")))
        )
        place, digests = self.place, self.question.base_digests
        bases_found = {
            name: bases.base(name, digest, platform, place.registries, place.known)
            for name, digest in digests.items()
        }
        if triggering := [name for name, each in bases_found.items() if each.on_build]:
            raise Refusal(f"the base image {triggering[0]} has ONBUILD instructions")
        return bases_found.get(self.question.recipe.base or "", Base())

    def _unlabelled(self, image: Image, earlier: Earlier, base: Base) -> Image:
        """Return the image without the labels that the earlier build gave it, and this one does not."""
        gone = set(earlier.labels) - set(self.inputs.labels)
        self.question.recipe.check_gone(gone)
        return image.unlabelled(gone, base.labels)

    def _push_layers(
        self,
        image: Image,
        reference: ImageReference,
        layers: Layers,
        source: Read,
        blobs: Blobs,
    ) -> Mapping[int, Sequence[Blob]]:
        target = self.inputs.image
        if target.repository != reference.repository:
            blobs.prepare(target)
            for number, descriptor in enumerate(image.manifest["layers"]):
                if number not in layers:
                    self._bring(descriptor, reference, blobs)
        large = self.place.large_files(target, blobs, self.progress)
        room = MOST_LAYERS - len(image.diff_ids)
        sent: dict[int, list[Blob]] = {}
        for number, changes in layers.items():
            together, alone = large.split(changes, room)
            room -= len(alone)
            sent[number] = (
                [self._push_layer(together, source, blobs)] if together or not alone else []
            )
            sent[number] += [large.layer(path, within, source) for path, within in alone.items()]
        return sent

    def _bring(
        self, descriptor: Mapping[str, Any], reference: ImageReference, blobs: Blobs
    ) -> None:
        """Have the repository hold a layer of another one's; it is sent where it is not mounted."""
        target, digest = self.inputs.image, descriptor["digest"]
        if blobs.mount(target, digest, reference) or blobs.has(target, digest):
            return
        self.progress.log(
            f"{target.registry} does not mount {digest} of {reference.path}: it is copied"
        )
        with tempfile.TemporaryFile(dir=self.place.scratch) as file:
            meter = Meter("copied", self.progress)
            with blobs.open(reference, digest) as stream:
                while chunk := stream.read(_CHUNK):
                    meter.check()
                    meter.add(len(chunk))
                    file.write(chunk)
            blobs.push(target, digest, file, descriptor["size"], self.progress)

    def _push_layer(self, changes: Mapping[str, Placed], source: Read, blobs: Blobs) -> Blob:
        target = self.inputs.image
        with tempfile.TemporaryFile(dir=self.place.scratch) as file:
            blob = pack(changes, source, file)
            if not blobs.has(target, blob.digest):
                blobs.push(target, blob.digest, file, blob.size, self.progress)
        self.progress.log(f"Made a layer of {len(changes)} entries, {blob.size:,} bytes")
        return blob

    def _push_image(
        self, image: Image, sent: Mapping[int, Sequence[Blob]], at: float, blobs: Blobs
    ) -> str:
        target = self.inputs.image
        made = image.remade(sent, self.inputs.labels, at)
        if not blobs.has(target, made.config_digest):
            with tempfile.TemporaryFile(dir=self.place.scratch) as file:
                file.write(made.config)
                file.seek(0)
                blobs.push(target, made.config_digest, file, len(made.config))
        blobs.put_manifest(target, StoredManifest(image.media_type, made.manifest), made.digest)
        return made.digest


def _commanded(image: Image, old: Commands, new: Commands) -> Image:
    """Return the image with the commands that the suffix has now."""
    keywords = [keyword for keyword, _ in new]
    for (keyword, before), (_, words) in zip(old, new, strict=True):
        if words != before:
            if keywords.count(keyword) > 1:
                raise Refusal(f"there are several {keyword}, and not all are as before")
            image = image.commanded(keyword, before, words)
    return image


def note(
    made: Earlier, key: str, place: GraftPlace, progress: Progress, most: float = math.inf
) -> None:
    """Read what is in the layers of an image that a builder has made, at most so many bytes, and
    keep it in mind for builds that have the same `key`. `Refusal` if no image can be made of it, and
    the registry's error if it does not let us know: both are kept, for those builds to tell.
    """
    try:
        _note(made, key, place, progress, most)
    except Refusal as refusal:
        place.known.refuse_image(key, refusal.reason)
        raise
    except (OperatorError, TransientError) as error:
        place.known.refuse_image(key, f"the image {made.image} could not be read: {error.message}")
        raise


def _note(made: Earlier, key: str, place: GraftPlace, progress: Progress, most: float) -> None:
    image = ImageReference.parse(made.image)
    blobs = place.registries(image)
    found = find(image, blobs)
    layers = read_layers(found, image, blobs, place.known, progress, most)
    large = place.large_files(image, blobs, progress)
    sources = set(Entries.of(made.record.entries).cut().sha256s())
    room = MOST_LAYERS - len(layers)
    for number in range(found.last_copied, len(layers)):
        room -= large.lift(layers[number], found.blob(number), sources, room)
    place.known.keep_image(key, made)


def find(reference: ImageReference, blobs: Blobs) -> Image:
    """Return an image with its config; `Refusal` if it is not there, or none that we could work
    with.
    """
    stored = blobs.manifest(reference)
    if stored is None:
        raise Refusal(f"the earlier image {reference} is not in the registry any more")
    image = Image.parse(stored.media_type, stored.body)
    return image.with_config(blobs.read(reference, image.config_digest))


def read_layers(
    image: Image,
    reference: ImageReference,
    blobs: Blobs,
    known: Grafts,
    progress: Progress,
    most: float = math.inf,
) -> tuple[Layer, ...]:
    """Return what is in all layers of an image.

    Those that nobody has read are read if they have no more than `most` bytes in all.
    """
    kept = known.find_layers(image.diff_ids)
    found = [None if data is None else Layer.load(data) for data in kept]
    missing = [
        number
        for number, layer in enumerate(found)
        if layer is None or (number >= image.last_copied and not layer.has_contents)
    ]
    descriptors = image.manifest["layers"]
    if sum(descriptors[number]["size"] for number in missing) > most:
        raise Refusal("what is in the layers of the earlier image has not been read yet")
    for number in missing:
        diff_id = image.diff_ids[number]
        with blobs.open(reference, descriptors[number]["digest"]) as stream:
            layer = read_layer(stream, diff_id, number >= image.last_copied, progress)
        known.keep_layer(diff_id, layer.dump())
        found[number] = layer
    return tuple(layer for layer in found if layer is not None)
