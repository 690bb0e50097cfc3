"""The proof and its use: what the old context becomes by our rules has to be what the builder has
made of it; then so is what the new one becomes.
"""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile, zip_longest

from imagemill.builders.graft import Refusal
from imagemill.builders.graft.copying import (
    Context,
    Files,
    IsArchive,
    Owner,
    Placed,
    above,
    destination_of,
    owner_found,
    owner_of,
)
from imagemill.builders.graft.layers import FileView, Layer, Node, resolved
from imagemill.builders.graft.recipe import Copy, Operation, Setting, WorkingFolder, folder_after

_PASSWD = "etc/passwd", "etc/group"
_LEFT_OUT = re.compile(
    r"(?:proc|sys|dev|run|var/run|kaniko|etc/(?:mtab|hosts|hostname|resolv\.conf))(?:/|$)"
    r"|tmp/apt-key-gpghome"
)
"""What Kaniko ignores: `defaultIgnoreList` in its `pkg/util/fs_util.go`, and what is mounted in a
pod.
"""


@dataclass(frozen=True)
class Suffix:
    """The last instructions of an image, with what each has made."""

    operations: tuple[Operation, ...]
    layers: tuple[Layer | None, ...]
    """Of each instruction; None where it made none."""
    working_folder: str
    """The one that holds where they begin."""
    by_buildkit: bool = True
    """Whether the builder is the one whose rules ours are."""


def remade(
    below: FileView, suffix: Suffix, old: Context, new: Context, is_archive: IsArchive
) -> tuple[Mapping[str, Placed] | None, ...]:
    """Return what each instruction makes of the new context; None where that is what it has made
    before.

    `below` are the layers under the suffix, onto which those are put that BuildKit would find in its
    cache: of the first instructions, as long as nothing that they read has changed. `is_archive`
    tells of files of the new context, and the proof of those of the old one. `Refusal` where the
    proof fails. Of another builder than BuildKit a rule is used only where the earlier image shows
    that it holds.
    """
    instructions = tuple(zip(suffix.operations, suffix.layers, strict=True))
    cached = takewhile(lambda each: _is_cached(*each, old, new), instructions)
    folder, begun = suffix.working_folder, 0
    for operation, layer in cached if suffix.by_buildkit else ():
        begun += 1
        if layer is not None:
            below.apply(layer)
        folder = _folder_after(operation, folder)
    before = Files(below.copy(), is_archive=lambda entry: False)
    after = Files(below.copy(), is_archive=is_archive)
    found: list[Mapping[str, Placed] | None] = [None] * begun
    for operation, layer in instructions[begun:]:
        if isinstance(operation, Setting):
            found.append(None)
            continue
        folder = _folder_after(operation, folder)
        theirs = _effect(before.nodes, layer or Layer(has_contents=True), operation)
        owner = owner_of(operation) or owner_found(theirs, operation)
        names = {_names(before), _names(after)}
        for files, context in ((before, old), (after, new)):
            files.begin()
            _perform(files, context, operation, folder, owner)
            names.add(_names(files))
        if owner_of(operation) is None and len(names) > 1:
            raise Refusal(f"it cannot be told who {operation.owner} is: users' names are copied")
        _compare(before.changes, theirs, operation)
        if not suffix.by_buildkit:
            _check_seen(operation, before, after)
        changes = _difference(after, theirs, layer, operation)
        found.append(changes and _with_folders(changes, after.nodes))
    return tuple(found)


def _check_seen(operation: Copy | WorkingFolder, before: Files, after: Files) -> None:
    """Of another builder's rules those hold that the earlier image shows."""
    if unseen := after.met - before.met:
        what, onto = min(unseen)
        raise Refusal(
            f"line {operation.line} puts a {what} onto {onto or 'nothing'}, and what this builder"
            " makes of that has not been seen in the earlier image"
        )
    if path := next((each for each in after.changes if _LEFT_OUT.match(each)), None):
        raise Refusal(f"/{path} is where this builder may leave out what is copied")


def _folder_after(operation: Operation, folder: str) -> str:
    return (
        folder_after([operation.path], folder) if isinstance(operation, WorkingFolder) else folder
    )


def _is_cached(operation: Operation, layer: Layer | None, old: Context, new: Context) -> bool:
    """Whether an instruction reads nothing that has changed.

    The old context's digests may be cut, so the layer has to have the whole ones of the new files.
    """
    if not isinstance(operation, Copy):
        return True
    if layer is None:
        return False
    contents = {node.sha256 for node in layer.entries.values()} | {""}
    return all(
        was is not None
        and now is not None
        and was.cut() == now.cut()
        and contents.issuperset(now.sha256s())
        for source in operation.sources
        for was, now in zip_longest(old.seen(source), new.seen(source))
    )


def _perform(
    files: Files, context: Context, operation: Copy | WorkingFolder, folder: str, owner: Owner
) -> None:
    if isinstance(operation, WorkingFolder):
        files.make_folders(resolved(files.nodes, folder), owner)
        return
    destination = destination_of(operation, folder)
    files.copy(context, operation, destination, owner)


def _names(files: Files) -> tuple[Node | None, ...]:
    """Return the files that say who a user is; those of the old context may have cut digests."""
    return tuple(files.nodes.get(resolved(files.nodes, path)) for path in _PASSWD)


def _effect(
    below: Mapping[str, Node], layer: Layer, operation: Copy | WorkingFolder
) -> Mapping[str, Node]:
    """Return what a layer of the builder's changes: folders that are the same as before change
    nothing.
    """
    if layer.removed or layer.emptied:
        raise Refusal(f"line {operation.line} has removed something")
    if not layer.has_contents:
        raise Refusal("what is in the earlier image's layers has not been read yet")
    return {
        path: node
        for path, node in layer.entries.items()
        if path and not (node.kind == "dir" and below.get(path) == node)
    }


def _compare(
    ours: Mapping[str, Placed], theirs: Mapping[str, Node], operation: Copy | WorkingFolder
) -> None:
    for path in ours.keys() | theirs.keys():
        mine, its = ours.get(path), theirs.get(path)
        if mine is None or its is None or not _same(mine.node, its):
            raise Refusal(
                f"line {operation.line} ({operation.keyword}) does not give /{path} by our rules"
                " as the builder made it"
            )


def _same(ours: Node, theirs: Node) -> bool:
    """Of the old context the digests may be cut."""
    if ours.kind != "file":
        return ours == theirs
    return (
        len(ours.sha256) > 0
        and theirs.sha256.startswith(ours.sha256)
        and ours._replace(sha256=theirs.sha256) == theirs
    )


def _with_folders(changes: Mapping[str, Placed], nodes: Mapping[str, Node]) -> Mapping[str, Placed]:
    """Return the changes and the folders above them, as builders have them in their layers, too:
    Docker's unpacker makes those anew that a layer does not name, with other owners and modes.
    """
    parents = {posixpath.dirname(path) for path in changes}
    folders = {folder: nodes[folder] for parent in parents for folder in above(parent)}
    if path := next((path for path, node in folders.items() if node.extra), None):
        raise Refusal(f"/{path} has attributes in the image, which a layer of ours would not")
    named = {path: Placed(node) for path, node in folders.items() if node.mode >= 0}
    return {**named, **changes}


def _difference(
    after: Files, theirs: Mapping[str, Node], layer: Layer | None, operation: Copy | WorkingFolder
) -> Mapping[str, Placed] | None:
    """Return what an instruction changes now; None where its layer can stay, in which the folders
    above have to be as they are now, too.
    """
    folders = {
        path: node
        for path, node in (layer or Layer()).entries.items()
        if path and node.kind == "dir"
    }
    if {path: placed.node for path, placed in after.changes.items()} == dict(theirs) and all(
        after.nodes.get(path) == node for path, node in folders.items()
    ):
        return None
    if isinstance(operation, WorkingFolder):
        raise Refusal(f"line {operation.line} (WORKDIR) makes other folders than before")
    return after.changes
