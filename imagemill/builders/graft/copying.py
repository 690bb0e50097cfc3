"""What COPY, ADD and WORKDIR do to the files of an image, step by step as BuildKit does it.

BuildKit: `solver/llbsolver/file/backend.go`, and `copy/copy.go` in
https://github.com/tonistiigi/fsutil. What it answers with an error is a `Refusal`: the builder is
to say it.
"""

import posixpath
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from imagemill.builders.graft import Refusal
from imagemill.builders.graft.layers import WHITEOUT, Node, resolved
from imagemill.builders.graft.recipe import Copy, WorkingFolder
from imagemill.context import Entries, Entry

_WILD = re.compile(r"[*?\[\\]")
_ODD = re.compile(r"[\\\[\]]")
_OWNER = re.compile(r"(?P<user>[0-9]+)(?::(?P<group>[0-9]+))?")


IsArchive = Callable[[Entry], bool]


class Owner(NamedTuple):
    """Whom what is copied belongs to."""

    uid: int
    gid: int


ROOT = Owner(0, 0)


class Placed(NamedTuple):
    """What an instruction puts at a path, and the entry of the context that it is a copy of."""

    node: Node
    entry: Entry | None = None


class Context:
    """The entries of a build context, by their paths."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = Entries.of(entries)

    def find(self, path: str) -> Entry | None:
        """Return the entry at a path; None if there is none. The top is a folder."""
        if not path:
            return Entry("dir", b"")
        return self._entries.find(path.encode(errors="surrogateescape"))

    def below(self, folder: str) -> Iterator[tuple[str, Entry]]:
        """All that is below a folder, with their paths relative to it, a folder before what it
        holds.
        """
        name = folder.encode(errors="surrogateescape")
        begin = len(name) + 1 if name else 0
        for entry in self._entries.below(name):
            yield entry.path[begin:].decode(errors="surrogateescape"), entry

    def matching(self, pattern: str) -> list[str]:
        """Return the paths that the source of a COPY names; `Refusal` where that cannot be told."""
        path = _from_top(pattern)
        plain, wild = _split(path)
        self._check_no_link(plain)
        if not wild:
            if self.find(path) is None:
                raise Refusal(f"the source has no {pattern}")
            return [path]
        top = self.find(plain)
        if top is None or top.kind != "dir":
            raise Refusal(f"the source has no folder {plain}")
        depth = wild.count("/")
        if depth and any(
            entry.kind == "link" and relative.count("/") < depth
            for relative, entry in self.below(plain)
        ):
            # Some versions of BuildKit read files as folders then, and fail.
            raise Refusal(f"the pattern {pattern} goes through folders that have links in them")
        found = list(self._matches(plain, wild))
        for each in found:
            self._check_no_link(each)
        return found

    def lacks(self, pattern: str) -> bool:
        """Whether it names something that is not there, and no pattern."""
        path = _from_top(pattern)
        unclear = _WILD.search(path) or any(self._is_link(part) for part in above(path))
        return not unclear and self.find(path) is None

    def has_folder(self, pattern: str) -> bool:
        """Whether it names a folder that is there, and no pattern."""
        found = self.find(_from_top(pattern))
        return found is not None and found.kind == "dir"

    def seen(self, pattern: str) -> Iterator[Entries]:
        """Yield the entries that an instruction which names this may read, in parts: rather too many
        than too few.
        """
        path = _from_top(pattern)
        plain, wild = _split(path)
        if not path or any(self._is_link(part) for part in above(plain)):
            yield self._entries
            return
        found = [plain] if self.find(plain) is not None else []
        if found and wild and not _ODD.search(wild) and "/" not in wild:
            found = list(self._matches(plain, wild))
        if "" in found or any(map(self._is_link, found)):
            yield self._entries
            return
        for each in found:
            yield self._entries.within(each.encode(errors="surrogateescape"))

    def _matches(self, top: str, wild: str) -> Iterator[str]:
        # Go's `filepath.Match`, of patterns without backslashes and brackets.
        if _ODD.search(wild):
            raise Refusal(f"the pattern {wild} is one that we do not read")
        translated = {"*": "[^/]*", "?": "[^/]"}
        pattern = "".join(translated.get(each, re.escape(each)) for each in wild)
        expression, skipped = re.compile(pattern, re.DOTALL), ""
        for relative, entry in self.below(top):
            if skipped and relative.startswith(skipped):
                continue
            if expression.fullmatch(relative):
                yield posixpath.join(top, relative)
                skipped = f"{relative}/" if entry.kind == "dir" else ""

    def _check_no_link(self, path: str) -> None:
        for part in above(path):
            if self._is_link(part):
                raise Refusal(f"{part} is a link, and the Dockerfile copies what it leads to")

    def _is_link(self, path: str) -> bool:
        entry = self.find(path)
        return entry is not None and entry.kind == "link"


@dataclass
class Files:
    """The files of an image while instructions change them."""

    nodes: dict[str, Node]
    is_archive: IsArchive
    """Whether ADD would unpack a file."""
    changes: dict[str, Placed] = field(default_factory=dict)
    """What the current instruction has put there."""
    met: set[tuple[str, str]] = field(default_factory=set)
    """What it has put onto what: kinds of nodes, of folders with `made` for those on the way."""

    def begin(self) -> None:
        """Begin another instruction."""
        self.changes, self.met = {}, set()

    def make_folders(self, path: str, owner: Owner) -> None:
        """Make a folder, and those above it, where they are not there."""
        for part in above(path):
            node = self.nodes.get(part)
            if node is None:
                parent = self.nodes.get(posixpath.dirname(part))
                if parent is not None and parent.mode > 0 and parent.mode & stat.S_ISGID:
                    raise Refusal(f"/{part} is made in a folder that passes on its group")
                self.met.add(("made", ""))
                self._put(part, Placed(Node("dir", 0o755, *owner)))
            elif node.kind != "dir":
                raise Refusal(f"/{part} in the image is no folder")

    def copy(self, context: Context, operation: Copy, destination: str, owner: Owner) -> None:
        """Do what a COPY does. `destination` is absolute, and has a slash at its end if that of the
        instruction has.
        """
        for pattern in operation.sources:
            for source in context.matching(pattern):
                self._copy(context, source, destination, operation, owner)

    def _copy(
        self, context: Context, source: str, destination: str, how: Copy, owner: Owner
    ) -> None:
        entry = context.find(source)
        assert entry is not None
        folder = destination if destination.endswith("/") else posixpath.dirname(destination)
        self.make_folders(resolved(self.nodes, folder), owner)
        target = resolved(self.nodes, destination)
        if entry.kind != "dir":
            if how.keyword == "ADD" and entry.kind != "link" and self.is_archive(entry):
                raise Refusal(f"line {how.line} (ADD) unpacks {source}")
            if self._is_folder(target):
                target = posixpath.join(target, posixpath.basename(source)).lstrip("/")
            self.make_folders(posixpath.dirname(target), owner)
            self._put_entry(target, entry, how.mode, owner)
            return
        self.make_folders(target, owner)
        prefix = f"{target}/" if target else ""
        for relative, below in context.below(source):
            self._put_entry(f"{prefix}{relative}", below, how.mode, owner)

    def _put_entry(self, path: str, entry: Entry, mode: int | None, owner: Owner) -> None:
        there = self.nodes.get(path)
        if posixpath.basename(path).startswith(WHITEOUT):
            raise Refusal(f"/{path} would take something away, by its name")
        self.met.add((entry.kind, there.kind if there is not None else ""))
        if entry.kind == "dir":
            if there is not None and there.kind != "dir":
                raise Refusal(f"/{path} is no folder in the image, and one in the source")
            if there is not None and there.extra:
                raise Refusal(
                    f"/{path} has attributes in the image, which a layer of ours would not"
                )
            node = Node("dir", 0o755 if mode is None else mode, *owner)
        elif (there is not None and there.kind == "dir") or not path:
            raise Refusal(f"/{path} is a folder in the image, and none in the source")
        elif entry.kind == "link":
            target = entry.target.decode(errors="surrogateescape")
            node = Node("link", 0o777, *owner, target)
        else:
            usual = 0o755 if entry.kind == "exec" else 0o644
            mode = usual if mode is None else mode
            node = Node("file", mode, *owner, "", entry.size, entry.sha256)
        self._put(path, Placed(node, entry))

    def _put(self, path: str, placed: Placed) -> None:
        if placed.node.kind == "dir" and self.nodes.get(path) == placed.node:
            return
        self.nodes[path] = placed.node
        self.changes.pop(path, None)
        self.changes[path] = placed

    def _is_folder(self, path: str) -> bool:
        node = self.nodes.get(path)
        return not path or (node is not None and node.kind == "dir")


def destination_of(operation: Copy, working_folder: str) -> str:
    """Return the destination as an absolute path, with a slash at its end where it has to be a
    folder.
    """
    text = operation.destination
    path = posixpath.normpath(posixpath.join("/", working_folder, text))
    path = f"/{path.lstrip('/')}"
    return f"{path.rstrip('/')}/" if text in (".", "") or text.endswith(("/", "/.")) else path


def owner_of(operation: Copy | WorkingFolder) -> Owner | None:
    """Return the owner that the instruction says; None where it is a name."""
    if operation.owner is None:
        return ROOT
    match = _OWNER.fullmatch(operation.owner)
    return Owner(int(match["user"]), int(match["group"] or match["user"])) if match else None


def owner_found(nodes: Mapping[str, Node], operation: Copy | WorkingFolder) -> Owner:
    """Return the owner of what an instruction has made, which its name is another word for; of a
    WORKDIR that has made nothing, and may not make anything, anybody.
    """
    if not nodes and isinstance(operation, WorkingFolder):
        return ROOT
    owners = {Owner(node.uid, node.gid) for node in nodes.values()}
    if len(owners) != 1:
        raise Refusal(f"line {operation.line}: it cannot be told who {operation.owner} is")
    return owners.pop()


def _from_top(pattern: str) -> str:
    """Return what an instruction names as it is below the source's top, which nothing leaves."""
    return posixpath.normpath(f"/{pattern}").lstrip("/")


def above(path: str) -> Iterator[str]:
    """Each folder on the way to a path, and the path itself."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)
    if path:
        yield path


def _split(path: str) -> tuple[str, str]:
    """Return the part of a pattern that is a plain path, and the rest from the first wild part on."""
    parts = path.split("/")
    for number, part in enumerate(parts):
        if _WILD.search(part):
            return "/".join(parts[:number]), "/".join(parts[number:])
    return path, ""
