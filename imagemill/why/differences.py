"""What differs between the inputs of two images, found from the records of both."""

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from posixpath import basename
from typing import Generic, Literal, NamedTuple, TypeVar

from imagemill.context import Entry
from imagemill.dockerfile.base_images import FromLine
from imagemill.why.record import DockerfileInput, InputRecord

T = TypeVar("T")


class Change(NamedTuple, Generic[T]):
    """A value before and after; None where there is none."""

    before: T | None
    after: T | None


class Pair(NamedTuple):
    """An entry before and after: of one path, or of one content."""

    before: Entry
    after: Entry

    @property
    def aspects(self) -> tuple[Literal["kind", "content", "executable", "target"], ...]:
        """What differs besides the path."""
        before, after = self
        if before.sha256 and after.sha256:
            content, mode = before.sha256 != after.sha256, before.kind != after.kind
            return (*(("content",) if content else ()), *(("executable",) if mode else ()))
        if before.kind != after.kind:
            return ("kind",)
        return ("target",) if before.target != after.target else ()


class BaseImage(NamedTuple):
    """What a stage stands on, before and after; None where there is no such stage."""

    stage: str
    """Its name, or its number from 0; empty if it is the only one."""
    before: str | None
    after: str | None


Named = Mapping[str, Change[str]]


@dataclass(frozen=True)
class Differences:
    """What is not the same; what is None or empty is."""

    format: Change[int] | None = None
    """How source hashes are made, which changes with the version of Imagemill."""
    base_images: tuple[BaseImage, ...] = ()
    dockerfile: Change[DockerfileInput] | None = None
    target: Change[str] | None = None
    platform: Change[str] | None = None
    build_args: Named = field(default_factory=dict)
    """Name → digests of the values."""
    secrets: Named = field(default_factory=dict)
    """Id → the same id, where there is such a secret."""
    labels: Named = field(default_factory=dict)
    options: Named = field(default_factory=dict)
    """Options of the builder, such as the arguments of `kaniko-config`."""
    changed: tuple[Pair, ...] = ()
    renamed: tuple[Pair, ...] = ()
    """Files that are gone and have come back, with the same content, under another name."""
    added: tuple[Entry, ...] = ()
    removed: tuple[Entry, ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self))

    def apply(self, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        """Return the entries after, from those before."""
        found = {entry.path: entry for entry in entries}
        for gone in (*self.removed, *(pair.before for pair in self.renamed)):
            del found[gone.path]
        come = (*self.added, *(pair.after for pair in (*self.renamed, *self.changed)))
        found |= {entry.path: entry for entry in come}
        return tuple(sorted(found.values(), key=_place))


def find(before: InputRecord, after: InputRecord) -> Differences:
    """Return what is to be done to the inputs `before` to have those `after`."""
    old, new = ({entry.path: entry for entry in record.entries} for record in (before, after))
    removed, added = _without(old, new), _without(new, old)
    renamed = _renamed(removed, added)
    gone, come = {pair.before.path for pair in renamed}, {pair.after.path for pair in renamed}
    return Differences(
        format=_change(before.format, after.format),
        base_images=_base_images(before.stages, after.stages),
        dockerfile=_change(before.recipe, after.recipe),
        target=_change(before.target, after.target),
        platform=_change(before.platform, after.platform),
        build_args=_changes(before.build_args, after.build_args),
        secrets=_changes(
            {name: name for name in before.secrets}, {name: name for name in after.secrets}
        ),
        labels=_changes(before.labels, after.labels),
        options=_changes(before.options, after.options),
        changed=tuple(
            Pair(old[path], new[path]) for path in old if old[path] != new.get(path, old[path])
        ),
        renamed=renamed,
        added=tuple(entry for entry in added if entry.path not in come),
        removed=tuple(entry for entry in removed if entry.path not in gone),
    )


def _place(entry: Entry) -> list[bytes]:
    """Its place in a manifest: a folder right before what it holds."""
    return entry.path.split(b"/")


def _without(entries: Mapping[bytes, Entry], others: Mapping[bytes, Entry]) -> list[Entry]:
    return [entry for path, entry in entries.items() if path not in others]


def _change(before: T | None, after: T | None) -> Change[T] | None:
    return None if before == after else Change(before, after)


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> Named:
    names = sorted(before.keys() | after.keys())
    return {
        name: change for name in names if (change := _change(before.get(name), after.get(name)))
    }


def _base_images(
    before: tuple[FromLine, ...], after: tuple[FromLine, ...]
) -> tuple[BaseImage, ...]:
    """By the stages' places if there are as many as before, else by their names; nothing if those
    of one side are not known.
    """
    if not before or not after:
        return ()
    if len(before) == len(after):
        pairs = list(zip(before, after, strict=True))
        return tuple(
            BaseImage(new.name or (str(number) if len(pairs) > 1 else ""), old.base, new.base)
            for number, (old, new) in enumerate(pairs)
            if _differ(old.base, new.base)
        )
    old_bases, new_bases = _by_name(before), _by_name(after)
    return tuple(
        BaseImage(name, old_bases.get(name), new_bases.get(name))
        for name in dict.fromkeys((*old_bases, *new_bases))
        if _differ(old_bases.get(name), new_bases.get(name))
    )


def _differ(before: str | None, after: str | None) -> bool:
    """Whether two base images are not the same; the digest counts where it is known of both."""
    if before and after and ("@" in before) != ("@" in after):
        return before.partition("@")[0] != after.partition("@")[0]
    return before != after


def _by_name(stages: tuple[FromLine, ...]) -> dict[str, str]:
    return {stage.name.lower() or str(number): stage.base for number, stage in enumerate(stages)}


def _renamed(removed: Iterable[Entry], added: Iterable[Entry]) -> tuple[Pair, ...]:
    """Pairs of the same content, of files that are not empty: first those that keep their own name,
    then the others.
    """

    def whole(entry: Entry) -> Hashable:
        return entry.sha256, basename(entry.path)

    def content(entry: Entry) -> Hashable:
        return entry.sha256

    found: list[Pair] = []
    for key in (whole, content):
        found += _paired(
            _left(removed, {pair.before for pair in found}),
            _left(added, {pair.after for pair in found}),
            key,
        )
    return tuple(sorted(found, key=lambda pair: _place(pair.before)))


def _left(entries: Iterable[Entry], told: set[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.size and entry not in told]


def _paired(
    removed: Iterable[Entry], added: Iterable[Entry], key: Callable[[Entry], Hashable]
) -> list[Pair]:
    """Each with the first of the others that has the same key and no partner yet."""
    waiting: defaultdict[Hashable, deque[Entry]] = defaultdict(deque)
    for entry in removed:
        waiting[key(entry)].append(entry)
    return [Pair(waiting[key(entry)].popleft(), entry) for entry in added if waiting[key(entry)]]
