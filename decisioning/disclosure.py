"""Everything that is held about a person, as JSON they can read: names for positions, dates for numbers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Final

import msgspec
import numpy as np
import orjson

from decisioning import profile as profiles
from decisioning.durations import UNIT_MS
from decisioning.localtime import iso
from decisioning.profile import DAILY, Profile
from features.rows import ERASED, KNOWN, MOVED, ROW, decode
from features.vector import named, vectors

_EPOCH: Final = date(1970, 1, 1)
_FLAGS: Final = (("merged", MOVED), ("erased", ERASED), ("known", KNOWN))


def of_profile(data: bytes) -> dict[str, Any]:
    """What a profile says; what it does not say is left out."""
    profile = profiles.decode(data)
    said = _plain(profile)
    said["suppressed"] = {
        channel: {reason: iso(since_ms) for reason, since_ms in reasons.items()}
        for channel, reasons in profile.suppressed.items()
    }
    said["days"] = {
        (_EPOCH + timedelta(days=day)).isoformat(): _counts(values) for day, values in sorted(profile.days.items())
    }
    said["totals"] = _counts(profile.totals)
    said["engaged"] = [iso(minute * UNIT_MS["m"]) for minute in profile.engaged]
    empty = _plain(Profile()) | {"totals": {}}
    return {name: value for name, value in said.items() if value != empty.get(name)}


def is_empty(row: bytes, profile: bytes) -> bool:
    """Whether what is kept under an id says nothing at all."""
    return not profile and not np.array([decode(row)], ROW).view(np.uint8).any()


def of_person(row: bytes, profile: bytes, now_ms: int) -> dict[str, Any]:
    """What is kept under an id, at a time."""
    return {"profile": of_profile(profile), **of_row(row, now_ms)}


def of_row(data: bytes, now_ms: int) -> dict[str, Any]:
    """What a feature row says at a time: the decayed sums by name, and how many messages were counted."""
    rows = np.array([decode(data)], ROW)
    flags, last_ms = int(rows["flags"][0]), int(rows["at_ms"][0])
    features = named(vectors(rows, now_ms)[0])
    return {
        "is": [name for name, flag in _FLAGS if flags & flag],
        "last_event": iso(last_ms) if last_ms else None,
        "messages": int(rows["count"][0]),
        "message_hashes": [f"{number:016x}" for number in rows["ring"][0].tolist() if number],
        "features": {name: value for name, value in features.items() if value},
    }


def of_record(value: bytes | None) -> Any:
    """What a record says: its JSON, else its text."""
    try:
        said = orjson.loads(value or b"null")
    except orjson.JSONDecodeError:
        return (value or b"").decode("utf-8", "backslashreplace")
    return said


def _counts(values: list[float]) -> dict[str, float]:
    return {name: value for name, value in zip(DAILY, values, strict=True) if value}


def _plain(value: Any) -> Any:
    """Structs as objects, times as RFC 3339, bodies of events as what they say."""
    match value:
        case msgspec.Struct():
            return dict(_field(name, getattr(value, name)) for name in value.__struct_fields__)
        case Mapping():
            return {str(key): _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case bytes():
            return of_record(value)
        case _:
            return value


def _field(name: str, value: Any) -> tuple[str, Any]:
    if name.endswith("_ms") and value is not None:
        return name.removesuffix("_ms"), iso(value)
    return name.removesuffix("_ms"), _plain(value)
