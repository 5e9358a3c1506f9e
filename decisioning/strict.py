"""The strict reading of one JSON text: what decides whether a record is malformed.

Plain and slow, 8 µs for a usual event. `reading` takes a faster way where it can prove that this one
agrees.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

MAX_DEPTH = 64
"""Containers within containers. Far below any parser's own limit, so that no stack decides."""

NUMBER_LIMIT = float(2**63)
"""Largest size of a number in properties and traits: what 64 bits hold, such as ids of other systems."""

_INT_DIGITS = 19  # longer ones are beyond int64, and int() of thousands of digits is quadratic
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


class Malformed(Exception):  # noqa: N818 - a verdict on input; it never leaves `decode`
    """A record that is no event.

    Parameters
    ----------
    reason
        Short code, safe as a metric label.
    message
        One sentence that holds nothing of the record's content.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def parse(value: bytes) -> Any:
    """Parse one JSON text (RFC 8259) that is UTF-8, at most `MAX_DEPTH` deep and free of repeated keys.

    Numbers beyond a double's range come out as infinities, integers of more than 19 digits as floats.

    Raises
    ------
    Malformed
        ``not_utf8, too_deep, not_json, duplicate_key, lone_surrogate``.
    """
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise Malformed("not_utf8", f"byte {error.start} is not UTF-8") from None
    if value.count(b"{") + value.count(b"[") > MAX_DEPTH:
        _check_depth(text)
    try:
        document = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Malformed("not_json", f"not JSON at character {error.pos}") from None
    if "\\u" in text:
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Malformed("lone_surrogate", "half of a surrogate pair is escaped in a text") from None
    return document


def check_numbers(value: Any, where: str) -> None:
    """Refuse numbers beyond `NUMBER_LIMIT`, at any depth.

    Raises
    ------
    Malformed
        ``number_out_of_range``.
    """
    for number in _numbers(value):
        if not -NUMBER_LIMIT <= number <= NUMBER_LIMIT:
            raise Malformed("number_out_of_range", f"{where} holds a number beyond ±{NUMBER_LIMIT:g}")


def _numbers(value: Any) -> Iterator[float]:
    match value:
        case bool():
            return
        case int() | float():
            yield value
        case dict():
            for one in value.values():
                yield from _numbers(one)
        case list():
            for one in value:
                yield from _numbers(one)


def _check_depth(text: str) -> None:
    depth = 0
    for token in _TOKEN.finditer(text):
        match token.group()[0]:
            case "{" | "[":
                depth += 1
                if depth > MAX_DEPTH:
                    raise Malformed("too_deep", f"nested deeper than {MAX_DEPTH}")
            case "}" | "]":
                depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Malformed("duplicate_key", "an object has the same key twice")
    return made


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INT_DIGITS else float(digits)


def _constant(_name: str) -> NoReturn:
    raise Malformed("not_json", "NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)
