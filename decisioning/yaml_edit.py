"""Small changes to a YAML file that leave every other character of it as it is.

Places come from the parser's own marks; a change is text put in at a place. Afterwards the text is parsed again and
must hold just what was meant, so that an unusual layout is refused rather than damaged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import yaml

from decisioning import yaml_source
from decisioning.findings import FieldPath, field_name

BOM: Final = "\N{ZERO WIDTH NO-BREAK SPACE}"


class EditError(ValueError):
    """A change that cannot be made in the layout the file has."""


def append(text: str, path: FieldPath, item: Mapping[str, Any]) -> str:
    """Add a mapping at the end of the list at a path.

    Raises
    ------
    EditError
        There is no such list, or it is shared, or the file's layout does not allow it.
    """
    body, bom = text.removeprefix(BOM), text[: len(text) - len(text.removeprefix(BOM))]
    node = _at(body, path)
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise EditError(f"{field_name(path)} is no list with entries")
    if node.flow_style:
        at = _end(node.value[-1])
        made = body[:at] + ", " + _flow(item, quoted=_is_json(body)) + body[at:]
    else:
        lines = [f"{key}: {_scalar_or_flow(value)}" for key, value in item.items()]
        indent = " " * node.start_mark.column
        made = _with_lines(
            body, _end(node.value[-1]), [f"{indent}- {lines[0]}", *(f"{indent}  {x}" for x in lines[1:])]
        )
    wanted = _changed(_data(body), path, lambda entries: (*entries, dict(item)))
    return bom + _verified(made, wanted, path)


def assign(text: str, path: FieldPath, value: str | Mapping[str, Any]) -> str:
    """Set one key of a mapping: its scalar is replaced, or the key added after the others.

    Raises
    ------
    EditError
        There is no such mapping, the value to replace is no scalar, or the file's layout does not allow it.
    """
    body, bom = text.removeprefix(BOM), text[: len(text) - len(text.removeprefix(BOM))]
    owner, key = _at(body, path[:-1]), str(path[-1])
    if not isinstance(owner, yaml.MappingNode) or not owner.value:
        raise EditError(f"{field_name(path[:-1])} has no fields")
    quoted = _is_json(body)
    present = next((inner for name, inner in owner.value if name.value == key), None)
    if present is not None:
        if not isinstance(present, yaml.ScalarNode) or not isinstance(value, str):
            raise EditError(f"{field_name(path)} cannot be replaced")
        start, end = present.start_mark.index, present.end_mark.index
        made = body[:start] + _scalar(value, quoted=quoted) + body[end:]
    elif owner.flow_style:
        at = _end(owner.value[-1][1])
        name = json.dumps(key) if quoted else key
        made = f"{body[:at]}, {name}: {_scalar_or_flow(value, quoted=quoted)}{body[at:]}"
    else:
        indent = " " * owner.value[0][0].start_mark.column
        made = _with_lines(body, _end(owner.value[-1][1]), [f"{indent}{key}: {_scalar_or_flow(value)}"])
    wanted = _changed(_data(body), path, lambda _: dict(value) if isinstance(value, Mapping) else value)
    return bom + _verified(made, wanted, path)


def _at(body: str, path: FieldPath) -> yaml.Node:
    loader = yaml_source.Loader(body)
    try:
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        raise EditError(f"the file is no YAML: {error}") from None
    finally:
        loader.dispose()
    for part in path:
        inner: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            inner = next((value for name, value in node.value if name.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            inner = node.value[part]
        if inner is None:
            raise EditError(f"there is no {field_name(path)} of its own")
        node = inner
    assert node is not None
    return node


def _end(node: yaml.Node) -> int:
    """Where a value really ends: the mark of a block collection stands before whatever comes next."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, yaml.MappingNode) else last)
    return int(node.end_mark.index)


def _with_lines(body: str, at: int, lines: list[str]) -> str:
    """Put lines after the one that a value ends on, with the file's own line ends."""
    newline = "\r\n" if "\r\n" in body else "\n"
    if at and body[at - 1] == "\n":  # a block scalar ends where the next line begins
        return body[:at] + "".join(line + newline for line in lines) + body[at:]
    stop = body.find("\n", at)
    if stop < 0:
        return body + newline + newline.join(lines) + newline
    return body[: stop + 1] + "".join(line + newline for line in lines) + body[stop + 1 :]


def _scalar_or_flow(value: str | Mapping[str, Any], *, quoted: bool = False) -> str:
    return _flow(value, quoted=quoted) if isinstance(value, Mapping) else _scalar(value, quoted=quoted)


def _flow(item: Mapping[str, Any], *, quoted: bool = False) -> str:
    parts = (
        f"{json.dumps(key) if quoted else key}: {_scalar_or_flow(value, quoted=quoted)}" for key, value in item.items()
    )
    return "{" + ", ".join(parts) + "}"


def _scalar(value: str, *, quoted: bool = False) -> str:
    """A text: bare where it is a simple word, else as JSON quotes it, which YAML reads the same."""
    if not quoted and value.isascii() and value.replace("-", "").isalnum() and _data(value) == value:
        return value
    return json.dumps(value, ensure_ascii=not value.isprintable())


def _is_json(body: str) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def _data(body: str) -> Any:
    return yaml_source.parse(body).data


def _changed(data: Any, path: FieldPath, change: Any) -> Any:
    """The data with what stands at a path replaced."""
    if not path:
        return change(data)
    part, rest = path[0], path[1:]
    if isinstance(part, int):
        return tuple(_changed(entry, rest, change) if index == part else entry for index, entry in enumerate(data))
    return {**data, part: _changed(data.get(part), rest, change)}


def _verified(made: str, wanted: Any, path: FieldPath) -> str:
    if _data(made) != wanted:
        raise EditError(f"{field_name(path)} is laid out in a way that cannot be added to, such as an alias")
    return made
