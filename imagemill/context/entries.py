"""The entries of a build context: one by one, and column by column."""

import json
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Literal, NamedTuple, Self, overload

Kind = Literal["file", "exec", "link", "dir"]
"""What an entry is; `exec` is a file that its owner may execute."""

CODES: dict[Kind, int] = {"file": ord("f"), "exec": ord("x"), "link": ord("l"), "dir": ord("d")}
"""Kind → how it is kept."""

KINDS = {code: kind for kind, code in CODES.items()}
"""What is kept → kind."""

_LINK = CODES["link"]
_FILES, _OTHERS = re.compile(b"[fx]+"), re.compile(b"[dl]+")
_RUNS = re.compile(b"[fx]+|[dl]+")

CUT = 8
"""Bytes of a digest that is enough to see a difference."""


class Entry(NamedTuple):
    """A file, a folder or a symbolic link in the build context."""

    kind: Kind
    path: bytes
    """Relative to the context's top, as the file system has it: no encoding is assumed."""
    size: int = 0
    """Of a file, in bytes."""
    sha256: str = ""
    """Of a file's content, in hex."""
    target: bytes = b""
    """Of a link: its text, which is not followed."""


class Entries(Sequence[Entry]):
    """Entries in columns: where there are tens of thousands, these are made, compared and kept in a
    small part of the time that as many objects take.
    """

    def __init__(
        self,
        kinds: bytes,
        paths: list[bytes],
        sizes: "array[int]",
        digests: bytes,
        targets: list[bytes],
    ) -> None:
        """`kinds` are `CODES`; digests have one width, and where an entry is no file, zeros."""
        self.kinds, self.paths, self.sizes = kinds, paths, sizes
        self.digests, self.targets = digests, targets
        self.width = len(digests) // len(paths) if paths else 0

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "Entries":
        """Return the entries in columns, which they may be in already."""
        if isinstance(entries, Entries):
            return entries
        entries = tuple(entries)
        width = max((len(entry.sha256) // 2 for entry in entries), default=0) or CUT
        return cls(
            bytes(CODES[entry.kind] for entry in entries),
            [entry.path for entry in entries],
            array("q", [entry.size for entry in entries]),
            b"".join(bytes.fromhex(entry.sha256).ljust(width, b"\0") for entry in entries),
            [entry.target for entry in entries],
        )

    @classmethod
    def unpack(
        cls,
        kinds: bytes,
        paths: list[bytes],
        sizes: Sequence[int],
        digests: bytes,
        links: Sequence[bytes],
    ) -> "Entries":
        """Return the entries from what `pack` gives; `ValueError` if it does not belong together."""
        width = len(digests) // len(sizes) if sizes else CUT
        all_sizes, all_digests = array("q"), bytearray()
        targets, files = [b""] * len(kinds), 0
        for begin, end in (run.span() for run in _RUNS.finditer(kinds)):
            length = end - begin
            if kinds[begin] in b"fx":
                all_sizes.extend(sizes[files : files + length])
                all_digests += digests[width * files : width * (files + length)]
                files += length
            else:
                all_sizes.extend([0] * length)
                all_digests += bytes(width * length)
        numbers = (number for number, kind in enumerate(kinds) if kind == _LINK)
        for number, link in zip(numbers, links, strict=True):
            targets[number] = link
        lengths = {len(kinds), len(paths), len(all_sizes)}
        if len(lengths) > 1 or (len(sizes), len(digests)) != (files, width * files):
            raise ValueError("its columns do not belong together")
        return cls(kinds, paths, all_sizes, bytes(all_digests), targets)

    def pack(self) -> tuple["array[int]", bytes, list[bytes]]:
        """Return sizes and digests of files alone, and the texts of links."""
        runs = self._runs(_FILES)
        sizes = array("q")
        for begin, end in runs:
            sizes.extend(self.sizes[begin:end])
        width = self.width
        digests = b"".join(self.digests[width * begin : width * end] for begin, end in runs)
        links = [
            target for kind, target in zip(self.kinds, self.targets, strict=True) if kind == _LINK
        ]
        return sizes, digests, links

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> Entry | Self:
        if isinstance(index, slice):
            begin, end, _ = index.indices(len(self))
            return type(self)(
                self.kinds[begin:end],
                self.paths[begin:end],
                self.sizes[begin:end],
                self.digests[self.width * begin : self.width * end],
                self.targets[begin:end],
            )
        number = range(len(self))[index]
        return next(iter(self[number : number + 1]))

    def __iter__(self) -> Iterator[Entry]:
        return map(
            Entry,
            map(KINDS.__getitem__, self.kinds),
            self.paths,
            self.sizes,
            self.sha256s(),
            self.targets,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entries):
            return isinstance(other, tuple) and tuple(self) == other
        mine, others = (
            (each.kinds, each.paths, each.sizes, each.targets) for each in (self, other)
        )
        return mine == others and self.digests == other.digests

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(tuple(self))

    def sha256s(self) -> list[str]:
        """Return the digest of each, in hex; empty where it is no file."""
        found = self._digits()
        for begin, end in self._runs(_OTHERS):
            found[begin:end] = [""] * (end - begin)
        return found

    def lines(self) -> list[str]:
        """Return the line of each in a manifest, without a line end."""
        kinds = map(KINDS.__getitem__, self.kinds)
        lines = list(map(" ".join, zip(kinds, quoted(self.paths), self._digits(), strict=True)))
        for begin, end in self._runs(_OTHERS):
            for number in range(begin, end):
                line = lines[number][: -2 * self.width - 1]
                if self.kinds[number] == _LINK:
                    line += f" {_encode(self.targets[number].decode(errors='surrogateescape'))}"
                lines[number] = line
        return lines

    def _digits(self) -> list[str]:
        return self.digests.hex(" ", self.width).split(" ") if self.paths else []

    def _runs(self, kinds: re.Pattern[bytes]) -> list[tuple[int, int]]:
        """Return where entries of such kinds begin and end."""
        return [run.span() for run in kinds.finditer(self.kinds)]

    def cut(self) -> "Entries":
        """Return the entries with digests that are cut."""
        if self.width <= CUT:
            return self
        digests = array("Q", self.digests)[:: self.width // CUT].tobytes()
        return Entries(self.kinds, self.paths, self.sizes, digests, self.targets)

    @cached_property
    def numbers(self) -> dict[bytes, int]:
        """Path → number of the entry."""
        return dict(zip(self.paths, range(len(self)), strict=True))

    def find(self, path: bytes) -> Entry | None:
        """Return the entry at a path; None if there is none."""
        number = self.numbers.get(path)
        return None if number is None else self[number]

    def below(self, folder: bytes) -> "Entries":
        """Return all that is below a folder that is there, or below the top, which is empty."""
        return self.within(folder)[1:] if folder else self

    def within(self, path: bytes) -> "Entries":
        """Return what is there: the entry, and of a folder all that is below it."""
        begin, prefix = self.numbers[path], path + b"/"
        end = bisect_left(
            range(len(self)), 1, begin + 1, key=lambda each: not self.paths[each].startswith(prefix)
        )
        return self[begin:end]


_encode = json.JSONEncoder(separators=("\n", ":")).encode


def quoted(texts: Sequence[bytes]) -> list[str]:
    """Return texts as JSON strings, ASCII alone, in which a byte that is not UTF-8 is the lone
    surrogate U+DC00 + byte, as PEP 383 has it.
    """
    # No line end is left as it is in a JSON string.
    return _encode(decoded(texts))[1:-1].split("\n") if texts else []


def decoded(texts: Sequence[bytes]) -> list[str]:
    """Return texts without NUL, as paths are, as strings; see `quoted` for what is no UTF-8."""
    return b"\0".join(texts).decode(errors="surrogateescape").split("\0") if texts else []


def encoded(texts: Sequence[str]) -> list[bytes]:
    """Return what `decoded` was given."""
    return "\0".join(texts).encode(errors="surrogateescape").split(b"\0") if texts else []
