"""A YAML document with the line of every key, read so that nothing in it can surprise.

Every key of the launch config is text, so scalars are taken as they are written: `account-id:
012345678901` keeps its zero and `region: no` is not false, as YAML 1.1 would have it. Only below
`kaniko-config`, which is Kubernetes' own, numbers and booleans are such. Aliases and merge keys
work, but their expansion is bounded.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import filterfalse
from typing import Any, TypeGuard

import yaml

from imagemill.config.faults import FREE, Fault, KeyPath, shown

MAX_VALUES = 20_000
"""Keys and values in a document, once all aliases are expanded."""
MAX_DEPTH = 64

Pair = tuple[yaml.ScalarNode, yaml.Node]

_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = {f"{_TAG}{name}" for name in ("str", "timestamp", "value", "merge")}
_NUMBER_TAGS = {f"{_TAG}{name}" for name in ("int", "float", "bool")}
_COLLECTION_TAGS = {f"{_TAG}seq", f"{_TAG}map"}
_NULL = f"{_TAG}null"
_NAMED = re.compile(r"""\b(alias|anchor|handle|directive) (['"]).*\2""")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TAGGED = "found a tag (!), expected plain YAML, where text that begins with ! is in quotes"


class DocumentError(Exception):
    """The text is no document that can be read on: `line`, `message` and `hint` say why."""

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(line, message, hint)
        self.line = line
        self.message = message
        self.hint = hint


@dataclass
class Document:
    """The content, and where in the text everything is."""

    data: dict[str, Any] = field(default_factory=dict)
    """Keys have underscores, except within `kaniko-config`."""
    lines: dict[KeyPath, int] = field(default_factory=dict)
    written: dict[KeyPath, str] = field(default_factory=dict)
    """Keys in the spelling of the text."""
    faults: list[Fault] = field(default_factory=list)
    empty: bool = False
    within: str = ""
    """The key of a chart's values that the config was found below, if it was."""

    def line(self, path: KeyPath) -> int:
        """Return the line of the key or item, or of the nearest one around it that is in the text."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse(text: str) -> Document:
    """Read one YAML document that is a mapping; `DocumentError` if there is none."""
    try:
        loader = _Loader(text)
        return _Reader(loader).document(loader.get_single_node())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # Without the names in it: an unquoted password that begins with * is an alias to YAML.
        problem = _NAMED.sub(r"\1", " ".join(filter(None, (error.context, error.problem))))
        raise DocumentError(
            mark.line + 1 if mark else 1, f"not valid YAML: {problem}", _advice(problem)
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DocumentError(
            line, f"found the character {error.character:#x}, expected text"
        ) from None


def _advice(problem: str) -> str:
    if r"'\t'" in problem:
        return "indent with spaces, not with tabs"
    if "single document" in problem:
        return "a launch config is one document: remove the line with ---"
    return "values with : # [ { * & ! % @ in them may need quotes"


class _Loader(yaml.SafeLoader):
    """PyYAML composes by recursion: the depth is bounded before Python's stack is."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.depth > MAX_DEPTH:
            raise DocumentError(self.line + 1, f"nested more than {MAX_DEPTH} levels deep")
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Reader:
    """Turns the nodes of one document into values."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self.loader = loader
        self.result = Document()
        self.values = 0

    def document(self, root: yaml.Node | None) -> Document:
        if root is None or root.tag == _NULL:
            self.result.empty = True
        elif isinstance(root, yaml.MappingNode):
            if chart := _in_chart(root):
                return self.embedded(*chart)
            self.result.data = self.value(root, ())
        else:
            kind = "a list" if isinstance(root, yaml.SequenceNode) else "text"
            raise DocumentError(
                _line(root), f"found {kind}, expected a mapping with keys such as builder"
            )
        return self.result

    def embedded(self, key: str, node: yaml.Node) -> Document:
        """Return the config in the values of a chart: below its key, or as a text."""
        if isinstance(node, yaml.ScalarNode):
            # The text of a block begins in the line after its key, and lines count from there.
            above = int(node.start_mark.line) + (1 if node.style in ("|", ">") else 0)
            self.result = parse("\n" * above + str(node.value))
        else:
            self.document(node)
        self.result.within = key
        return self.result

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.count(node, len(path))
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if node.tag not in _COLLECTION_TAGS:
            self.fault(node, path, _TAGGED)
        if isinstance(node, yaml.SequenceNode):
            return [self.item(item, (*path, index)) for index, item in enumerate(node.value)]
        return self.mapping(node, path)

    def count(self, node: yaml.Node, depth: int) -> None:
        """Bound what aliases expand to: few lines can stand for billions of values, or contain
        themselves.
        """
        self.values += 1
        if self.values > MAX_VALUES:
            raise DocumentError(
                _line(node),
                f"found more than {MAX_VALUES} values",
                "aliases count as what they repeat",
            )
        if depth > MAX_DEPTH:
            raise DocumentError(_line(node), f"nested more than {MAX_DEPTH} levels deep")

    def item(self, node: yaml.Node, path: KeyPath) -> Any:
        self.result.lines[path] = _line(node)
        return self.value(node, path)

    def mapping(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        pairs = {_spelt(pair[0], path): pair for pair in self.pairs(node, path, depth=0)}
        result = {}
        for key, (key_node, value_node) in pairs.items():
            self.result.lines[(*path, key)] = _line(key_node)
            self.result.written[(*path, key)] = _printable(key_node.value)
            result[key] = self.value(value_node, (*path, key))
        return result

    def pairs(self, node: yaml.Node, path: KeyPath, depth: int) -> Iterator[Pair]:
        """Yield the pairs of a mapping, those that it merges in (`<<`) before its own, which win."""
        own: dict[str, yaml.Node] = {}
        for _, source in filter(_is_merge, node.value):
            yield from self.merged(source, path, depth)
        for key_node, value_node in filterfalse(_is_merge, node.value):
            self.count(key_node, depth)
            if not _is_text_key(key_node):
                self.fault(key_node, (*path, "?"), "found a key that is not text, expected text")
                continue
            self.check_twice(own, key_node, path)
            yield key_node, value_node

    def merged(self, source: yaml.Node, path: KeyPath, depth: int) -> Iterator[Pair]:
        """Of several mappings the first one wins: https://yaml.org/type/merge.html."""
        sources = source.value if isinstance(source, yaml.SequenceNode) else [source]
        for mapping in reversed(sources):
            self.count(mapping, depth)
            if isinstance(mapping, yaml.MappingNode):
                yield from self.pairs(mapping, path, depth + 1)
            else:
                self.fault(
                    source, path, f"found {shown(mapping.value)} to merge, expected a mapping"
                )

    def check_twice(
        self, own: dict[str, yaml.Node], key_node: yaml.ScalarNode, path: KeyPath
    ) -> None:
        key = _spelt(key_node, path)
        if key in own:
            self.result.faults.append(
                Fault(
                    (*path, key),
                    f"found twice, in line {_line(own[key])} and line {_line(key_node)}, expected once",
                )
            )
        own[key] = key_node

    def scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        if node.tag == _NULL:
            return None
        if node.tag not in _TEXT_TAGS | _NUMBER_TAGS:
            return self.fault(node, path, _TAGGED)
        if _SURROGATE.search(node.value):
            return self.fault(node, path, "found half a UTF-16 character, expected text")
        # Kubernetes does not know YAML's numbers to the base of 60 (`1:30` is 90): for it they are
        # text.
        if node.tag in _TEXT_TAGS or not _is_free(path) or ":" in node.value:
            return node.value
        return self.number(node, path)

    def number(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        try:
            value = self.loader.construct_object(node)
        except (
            ValueError,
            LookupError,
        ):  # an explicit tag on something else, or more digits than Python reads
            return self.fault(node, path, "found no number or boolean, expected one")
        if isinstance(value, float) and not math.isfinite(value):
            return self.fault(
                node, path, "found a number that JSON does not have, expected another"
            )
        return value

    def fault(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        self.result.lines.setdefault(path, _line(node))
        self.result.faults.append(Fault(path, message))


CHART_KEYS = ("agentConfig", "launchConfig")
"""Below which a Helm chart's values have a launch config: ours, and the W&B agent's own chart."""


def _in_chart(root: yaml.MappingNode) -> tuple[str, yaml.Node] | None:
    """Return the launch config in a chart's values, and its key; None if the document is none."""
    for key, value in root.value:
        if isinstance(key, yaml.ScalarNode) and key.value in CHART_KEYS and value.tag != _NULL:
            return str(key.value), value
    return None


def _is_free(path: KeyPath) -> bool:
    return path[: len(FREE)] == FREE


def _is_text_key(key: yaml.Node) -> TypeGuard[yaml.ScalarNode]:
    return (
        isinstance(key, yaml.ScalarNode) and key.tag != _NULL and not _SURROGATE.search(key.value)
    )


def _spelt(key: yaml.ScalarNode, path: KeyPath) -> str:
    """Return the key as the model has it: with underscores, except in the free part."""
    return str(key.value) if _is_free(path) else str(key.value).replace("-", "_")


def _printable(key: str) -> str:
    return key if key.isprintable() and len(key) <= 80 else f"{ascii(key[:60])[1:-1]}…"


def _is_merge(pair: tuple[yaml.Node, yaml.Node]) -> bool:
    return bool(pair[0].tag == f"{_TAG}merge")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
