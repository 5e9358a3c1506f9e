"""Paths into an event, such as `properties.cart_id`, and the values found there."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_KEY_CHARACTERS = 256
EXACT_FLOAT = 2**53  # up to here a float holds every whole number

_PATH = re.compile(r"(?:event\.)?(properties(?:\.[A-Za-z0-9_-]{1,100}){1,8})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Path:
    """Where a value stands in an event.

    Attributes
    ----------
    parts
        Keys from the outside in; the first is `properties`.

    Examples
    --------
    >>> path = Path.parse("properties.cart_id")
    >>> path.of({"properties": {"cart_id": 7.0}}), path.key({"properties": {"cart_id": 7.0}})
    (7.0, '7')
    """

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: object) -> Path:
        """Read a path; `event.` before it may be left out. Raises ValueError, whose message is the remedy."""
        if isinstance(text, cls):
            return text
        match = _PATH.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            plain = isinstance(text, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,40}", text, re.ASCII)
            raise ValueError(f"try properties.{text}" if plain and text != "properties" else "begin with properties.")
        return cls(tuple(match[1].split(".")))

    def __str__(self) -> str:
        """Write the path with dots, without `event.`."""
        return ".".join(self.parts)

    def of(self, event: Mapping[str, Any]) -> Any:
        """Value at the path in a whole event, or None where there is none."""
        value: Any = event
        for part in self.parts:
            if not isinstance(value, dict):
                return None
            value = value.get(part)
        return value

    def key(self, event: Mapping[str, Any]) -> str:
        """Value at the path as text that is the same for the same thing: 7, 7.0 and "7" are one; nothing is ""."""
        return key_text(self.of(event))


def key_text(value: Any) -> str:
    """Write a JSON value as a key.

    Whole numbers lose their fraction, null is the empty text, lists and objects are compact JSON with sorted keys, and
    what is longer than 256 characters is `#` and its SHA-256.
    """
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT_FLOAT:
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
    if len(text) > MAX_KEY_CHARACTERS:
        return "#" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return text
