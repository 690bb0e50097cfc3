"""What differs between two images, for people or as JSON."""

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from rich.filesize import decimal
from rich.text import Text

from imagemill.cli.render import json_
from imagemill.cli.terminal import console
from imagemill.context import Entry
from imagemill.files.tree import shown
from imagemill.why.differences import Change, Differences, Named, Pair
from imagemill.why.record import DockerfileInput

_MOST = 20
"""Lines of one list on a terminal."""

_STYLES = {"+": "green", "-": "red", "~": "yellow", ">": "cyan"}


class Side(NamedTuple):
    """One of the two images."""

    given: str
    """As it was named on the command line."""
    source_hash: str


class Line(NamedTuple):
    """One line of a list."""

    sign: str
    """`+` added, `-` removed, `~` changed, `>` renamed."""
    what: str
    how: str = ""


class List(NamedTuple):
    """The differences of one kind."""

    title: str
    counted: str
    """How many there are, as the answer has it."""
    lines: Sequence[Line]


def tell(sides: tuple[Side, Side], found: Differences, *, as_json: bool, everything: bool) -> None:
    """Print the answer, and what it rests on; lists are cut on a terminal unless `everything` is
    wanted.
    """
    if as_json:
        json_(_data(*sides, found))
        return
    out = console()
    # Not rich's own question: it says yes in a pipe where colours are forced.
    most = _MOST if out.file.isatty() and not everything else sys.maxsize
    lists = lists_of(found)
    out.print(Text(_answer(*sides, lists), "bold"))
    for each in lists:
        out.print(Text(f"\n{each.title}"))
        for line in each.lines[:most]:
            out.print(_text(line))
        if len(each.lines) > most:
            out.print(Text(f"  … and {len(each.lines) - most} more; --all shows them", "dim"))


def lists_of(found: Differences) -> list[List]:
    """All that differs, what matters most first; what one list tells is not told again in
    another.
    """
    told = _told_as_dockerfile(found)
    changed = [pair for pair in found.changed if pair not in told and not _ignores(pair.after)]
    added, removed = (_telling(entries, found.renamed) for entries in (found.added, found.removed))
    lists = (
        _one(
            "imagemill",
            "the version of Imagemill",
            _change(found.format, "", "how it makes source hashes"),
        ),
        _many("base image", [_base_image(*each) for each in found.base_images], "base image"),
        _one("Dockerfile", "the Dockerfile", _dockerfile(found.dockerfile)),
        _one("target", "the target", _change(found.target, "the last stage")),
        _one("platform", "the platform", _change(found.platform, "the builder's own")),
        _many("build arguments", list(_named(found.build_args, values=False)), "build argument"),
        _many("build secrets", list(_named(found.secrets, values=False)), "build secret"),
        _many("labels", list(_named(found.labels, values=True)), "label"),
        _many("options", list(_named(found.options, values=True)), "option of the builder"),
        _one("ignore file", "the ignore file", *_ignore_files(found)),
        _many("changed", [_changed(pair) for pair in changed], "path changed", "paths changed"),
        _renamed(found.renamed),
        _many("added", [_entry("+", entry) for entry in added], "path added", "paths added"),
        _many(
            "removed", [_entry("-", entry) for entry in removed], "path removed", "paths removed"
        ),
    )
    return [each for each in lists if each.lines]


def _answer(before: Side, after: Side, lists: Sequence[List]) -> str:
    if before.source_hash == after.source_hash:
        return f"The same: both have the source hash {after.source_hash}, for which an image is built once"
    if lists:
        return f"Different: {', '.join(each.counted for each in lists)}"
    return "Different: the source hashes, though nothing in the records does; two versions of Imagemill made them"


def _text(line: Line) -> Text:
    return Text.assemble(
        "  ",
        (line.sign, _STYLES[line.sign]),
        f" {line.what}",
        (f"  {line.how}" if line.how else "", "dim"),
    )


def _many(title: str, lines: Sequence[Line], one: str, many: str = "") -> List:
    return List(title, f"{len(lines)} {one if len(lines) == 1 else many or f'{one}s'}", lines)


def _one(title: str, counted: str, *lines: Line | None) -> List:
    return List(title, counted, [line for line in lines if line])


def _change(change: Change[Any] | None, nothing: str, how: str = "") -> Line | None:
    return (
        Line("~", _arrow(*(_clean(str(value or nothing)) for value in change)), how)
        if change
        else None
    )


def _base_image(stage: str, before: str | None, after: str | None) -> Line:
    how = f"stage {_clean(stage)}" if stage else ""
    if before is None or after is None:
        return Line("+" if before is None else "-", _clean(before or after or ""), how)
    return Line("~", _arrow(_clean(before), _clean(after)), how)


def _dockerfile(change: Change[DockerfileInput] | None) -> Line | None:
    if change is None or change.before is None or change.after is None:
        return None
    before, after = _recipe(change.before), _recipe(change.after)
    how = "content" if change.before.digest != change.after.digest else ""
    return Line("~", before if before == after else _arrow(before, after), how)


def _recipe(recipe: DockerfileInput) -> str:
    return f"{_clean(recipe.path)}{' (generated)' if recipe.generated else ''}"


def _told_as_dockerfile(found: Differences) -> list[Pair]:
    """Return the Dockerfile among the changed paths, where its content is all that has changed."""
    recipes = found.dockerfile or ()
    paths = {recipe.path.encode(errors="surrogateescape") for recipe in recipes if recipe}
    return [
        pair for pair in found.changed if pair.after.path in paths and pair.aspects == ("content",)
    ]


def _named(changes: Named, *, values: bool) -> Iterator[Line]:
    for name, (before, after) in changes.items():
        if before is not None and after is not None:
            how = _arrow(_clean(before), _clean(after)) if values else "another value"
            yield Line("~", _clean(name), how)
        else:
            sign, value = ("+", after) if before is None else ("-", before)
            yield Line(sign, _clean(name), _clean(value or "") if values else "")


def _ignores(entry: Entry) -> bool:
    """Whether it is `.dockerignore` at the top, or a Dockerfile's own."""
    return entry.path.endswith(b".dockerignore") and not entry.path.endswith(b"/.dockerignore")


def _ignore_files(found: Differences) -> Iterator[Line]:
    yield from (_changed(pair) for pair in found.changed if _ignores(pair.after))
    for sign, entries in (("+", found.added), ("-", found.removed)):
        yield from (_entry(sign, entry) for entry in entries if _ignores(entry))


def _telling(entries: Sequence[Entry], renamed: Sequence[Pair]) -> list[Entry]:
    """Without ignore files, and without folders that what is in them tells."""
    paths = [entry.path for entry in entries] + [entry.path for pair in renamed for entry in pair]
    folders = {path[:end] for path in paths for end, byte in enumerate(path) if byte == ord("/")}
    return [entry for entry in entries if entry.path not in folders and not _ignores(entry)]


def _entry(sign: str, entry: Entry) -> Line:
    if entry.kind == "dir":
        return Line(sign, f"{_clean(shown(entry.path))}/")
    if entry.kind == "link":
        return Line(sign, _clean(shown(entry.path)), f"link to {_clean(shown(entry.target))}")
    return Line(
        sign,
        _clean(shown(entry.path)),
        decimal(entry.size) + (", executable" if entry.kind == "exec" else ""),
    )


_CALLED = {"file": "file", "exec": "file", "link": "link", "dir": "folder"}


def _changed(pair: Pair) -> Line:
    return Line("~", _clean(shown(pair.after.path)), ", ".join(_aspects(pair)))


def _aspects(pair: Pair) -> Iterator[str]:
    before, after = pair
    for aspect in pair.aspects:
        if aspect == "content":
            sizes = decimal(before.size), decimal(after.size)
            yield f"content, {_arrow(*sizes)}" if sizes[0] != sizes[1] else "content"
        elif aspect == "executable":
            yield "executable" if after.kind == "exec" else "not executable"
        elif aspect == "target":
            yield f"link to {_arrow(_clean(shown(before.target)), _clean(shown(after.target)))}"
        else:
            yield _arrow(_CALLED[before.kind], _CALLED[after.kind])


def _renamed(pairs: Sequence[Pair]) -> List:
    """Files that went the same way together, in one line."""
    together: dict[tuple[bytes, bytes], list[Pair]] = {}
    for pair in pairs:
        together.setdefault(_way(pair), []).append(pair)
    lines = [_moved(way, those) for way, those in together.items()]
    return List("renamed", f"{len(pairs)} {'path' if len(pairs) == 1 else 'paths'} renamed", lines)


def _moved(way: tuple[bytes, bytes], pairs: Sequence[Pair]) -> Line:
    if len(pairs) == 1:
        paths = [_clean(shown(entry.path)) for entry in pairs[0]]
        return Line(">", _arrow(*paths), ", ".join(_aspects(pairs[0])))
    folders = [f"{_clean(shown(folder)) or '.'}/" for folder in way]
    return Line(">", _arrow(*folders), f"{len(pairs)} files")


def _way(pair: Pair) -> tuple[bytes, bytes]:
    """Return the paths without the end that they have in common: from which folder it went, and to
    which.
    """
    before, after = (entry.path.split(b"/") for entry in pair)
    ends = zip(reversed(before), reversed(after), strict=False)
    same = 0 if pair.aspects else sum(1 for _ in takewhile(lambda end: end[0] == end[1], ends))
    return b"/".join(before[: len(before) - same]), b"/".join(after[: len(after) - same])


def _arrow(before: str, after: str) -> str:
    return f"{before} → {after}"


def _clean(text: str) -> str:
    """Other people's text in one line, and nothing in it that a terminal would obey."""
    return text if text.isprintable() else json.dumps(text)


def _data(before: Side, after: Side, found: Differences) -> dict[str, Any]:
    return {
        "same": before.source_hash == after.source_hash,
        "before": before._asdict(),
        "after": after._asdict(),
        "format": _change_data(found.format),
        "base_images": [image._asdict() for image in found.base_images],
        "dockerfile": (
            {name: recipe._asdict() for name, recipe in found.dockerfile._asdict().items()}
            if found.dockerfile
            else None
        ),
        "target": _change_data(found.target),
        "platform": _change_data(found.platform),
        "build_args": _names(found.build_args),
        "secrets": _names(found.secrets),
        "labels": {name: change._asdict() for name, change in found.labels.items()},
        "options": {name: change._asdict() for name, change in found.options.items()},
        "changed": [{**_pair_data(pair), "aspects": pair.aspects} for pair in found.changed],
        "renamed": [{**_pair_data(pair), "aspects": pair.aspects} for pair in found.renamed],
        "added": [_entry_data(entry) for entry in found.added],
        "removed": [_entry_data(entry) for entry in found.removed],
    }


def _change_data(change: Change[Any] | None) -> dict[str, Any] | None:
    return change._asdict() if change else None


def _names(changes: Named) -> dict[str, list[str]]:
    """Without the values, which may be secrets, and their digests."""
    return {
        "added": [name for name, change in changes.items() if change.before is None],
        "removed": [name for name, change in changes.items() if change.after is None],
        "changed": [name for name, change in changes.items() if None not in change],
    }


def _pair_data(pair: Pair) -> dict[str, Any]:
    return {"before": _entry_data(pair.before), "after": _entry_data(pair.after)}


def _entry_data(entry: Entry) -> dict[str, Any]:
    """Paths are written as the manifest has them: a byte that is not UTF-8 is a lone surrogate."""
    data: dict[str, Any] = {"path": entry.path.decode(errors="surrogateescape"), "kind": entry.kind}
    if entry.kind == "link":
        data["target"] = entry.target.decode(errors="surrogateescape")
    if entry.sha256:
        data["size"] = entry.size
    return data
