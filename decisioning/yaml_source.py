"""YAML (and so JSON) text -> plain data, knowing where everything stands.

Scalars follow the core schema of YAML 1.2: `21:00`, `on`, `no` and `2026-01-01` are text, as a reader expects, not
numbers, booleans or dates. Mappings become dicts, sequences tuples. Whatever is odd is a finding; nothing is executed,
and size, depth and the growth by aliases are bounded.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import yaml

from decisioning.findings import FieldPath, Finding, field_name, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_NODES = 200_000  # after aliases are expanded

_INTEGER = re.compile(r"[-+]?[0-9]{1,19}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_TAG = "tag:yaml.org,2002:"
# The last three are what PyYAML takes plain words for; they are read as text here, or as the key "<<".
_PLAIN_TAGS = {
    _TAG + kind for kind in ("str", "int", "float", "bool", "null", "map", "seq", "timestamp", "merge", "value")
}


@dataclass(slots=True)
class Source:
    """A parsed file.

    Attributes
    ----------
    name, data
        The file's name and what it holds (None if it could not be parsed).
    values, keys
        Line and column, from 1, of the value at a path and of the key that names it.
    findings
        What is wrong with the text as YAML.
    """

    name: str
    data: Any = None
    values: dict[FieldPath, tuple[int, int]] = field(default_factory=dict)
    keys: dict[FieldPath, tuple[int, int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def place(self, path: FieldPath) -> tuple[int, int]:
        """Line and column of the value at a path; of the nearest one above it, if there is none."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, (1, 1))

    def at(self, path: FieldPath) -> Any:
        """What stands at a path, None where nothing does."""
        value = self.data
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def shown(self, path: FieldPath) -> str:
        """What stands at a path, shortened for a finding; empty where nothing does."""
        return shown(self.at(path)) if path in self.values else ""

    def error(self, place: tuple[int, int], path: FieldPath, value: str, expected: str, remedy: str) -> None:
        """Add an error that stands at this line and column."""
        self.findings.append(Finding("error", self.name, *place, field_name(path), value, expected, remedy))

    def find(self, severity: Literal["error", "warning"], path: FieldPath, expected: str, remedy: str) -> None:
        """Add a finding about the value at a path."""
        place, name = self.place(path), field_name(path)
        self.findings.append(Finding(severity, self.name, *place, name, self.shown(path), expected, remedy))


class Loader(yaml.SafeLoader):
    """PyYAML's composer with bounded depth and with tabs as white space inside brackets, as JSON has them."""

    depth = 0

    def scan_to_next_token(self) -> None:
        """Skip tabs too inside brackets."""
        while True:
            super().scan_to_next_token()
            if not self.flow_level or self.peek() != "\t":
                return
            self.forward()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one value. Raises MarkedYAMLError where it lies too deep."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs leave it out
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse(text: str | bytes, name: str = "config") -> Source:
    """Read YAML text.

    Parameters
    ----------
    text
        The file's content; bytes are UTF-8, with or without a byte order mark.
    name
        What to call the file in findings.

    Returns
    -------
    Source
        `data` is None where the text cannot be parsed at all; `findings` then says why. It never raises.
    """
    source = Source(name)
    decoded = _decode(text, source)
    if decoded is None:
        return source
    loader = None
    try:
        loader = Loader(decoded)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        said = ", ".join(part for part in (error.context, error.problem) if part)
        source.error(place, (), "", f"expected YAML: {said}", _yaml_remedy(said))
    except yaml.reader.ReaderError as error:
        source.error(
            _place_after(decoded[: error.position]), (), "", "expected printable text", "remove the control character"
        )
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        source.error((1, 1), (), "", f"expected YAML: {type(error).__name__}", "simplify the file")
    else:
        if node is None:
            source.error((1, 1), (), "", "the file is empty", 'begin with "version: 1"')
        else:
            source.data = _Builder(source).build(node, ())
    finally:
        if loader is not None:
            loader.dispose()
    return source


def _decode(text: str | bytes, source: Source) -> str | None:
    size_bytes = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size_bytes > MAX_BYTES:
        said = f"the file has {size_bytes} bytes, at most {MAX_BYTES} are read"
        source.error((1, 1), (), "", said, "shorten it")
        return None
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            place = _place_after(error.object[: error.start].decode("utf-8"))
            source.error(place, (), "", "expected UTF-8 text", "save the file as UTF-8")
            return None
    return text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")


def _place_after(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _yaml_remedy(said: str) -> str:
    if "'\\t'" in said:
        return "indent with spaces, not tabs"
    if "duplicate anchor" in said or "undefined alias" in said:
        return "define every anchor once, before it is used"
    if "expected a single document" in said:
        return 'keep one document in the file: remove the second "---"'
    if "levels" in said:
        return "nest less deeply"
    return "check indentation, quotes and brackets there and just before; put text with : # { [ in quotes"


class _Builder:
    """Nodes -> data, with the place of every key and value."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.nodes = 0
        self.open: set[int] = set()

    def build(self, node: yaml.Node, path: FieldPath) -> Any:
        """Value of a node; the place of everything in it is noted, and what YAML allows and we do not is said."""
        place = (node.start_mark.line + 1, node.start_mark.column + 1)
        self.source.values[path] = place
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH or id(node) in self.open:
            if self.nodes <= MAX_NODES + 1:  # said once
                self.source.error(place, path, "", "aliases make the file endless", "write the values out")
            return None
        if node.tag not in _PLAIN_TAGS:
            self.source.error(place, path, node.tag, "tags are not used here", f"remove {node.tag}")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            return tuple(self.build(item, (*path, index)) for index, item in enumerate(node.value))
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if _is_merge(key_node):  # before all others, whose places then stand
                self._merge(value_node, path, merged)
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                self.source.error(place, path, "", "a key must be text", "write a plain name before the colon")
            elif not _is_merge(key_node):
                key = _joined(key_node.value)
                inner = (*path, key)
                if key in built:
                    first, _ = self.source.keys[inner]
                    self.source.error(place, inner, "", f"the key is already on line {first}", "keep one of the two")
                    continue
                self.source.keys[inner] = place
                built[key] = self.build(value_node, inner)
        return {**{key: value for key, value in merged.items() if key not in built}, **built}

    def _merge(self, node: yaml.Node, path: FieldPath, merged: dict[str, Any]) -> None:
        """`<<: *base` takes what `base` has and this mapping has not; of several, the first wins."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                place = (part.start_mark.line + 1, part.start_mark.column + 1)
                self.source.error(
                    place, path, "", '"<<" takes mappings', "name an anchor of a mapping, such as <<: *base"
                )
                continue
            place = self.source.values[path]
            taken: Mapping[str, Any] = self.build(part, path) or {}
            self.source.values[path] = place
            for key, value in taken.items():
                merged.setdefault(key, value)

    def _scalar(self, node: yaml.ScalarNode, path: FieldPath) -> Any:
        text: str = node.value
        if node.style is not None:  # quoted
            return self._text(text, path)
        if text.lower() in _WORDS and text in (text.lower(), text.upper(), text.capitalize()):
            return _WORDS[text.lower()]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
            return number
        return self._text(text, path)

    def _text(self, text: str, path: FieldPath) -> str:
        joined = _joined(text)
        if any("\ud800" <= character <= "\udfff" for character in joined):
            self.source.error(self.source.values[path], path, "", "half a character (a lone surrogate)", "remove it")
            return ""
        return joined


def _is_merge(key: yaml.Node) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.style is None and key.value == "<<"


def _joined(text: str) -> str:
    r"""Join the two halves of a character that JSON wrote as `\ud83d\ude00`; PyYAML leaves them apart."""
    if not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
