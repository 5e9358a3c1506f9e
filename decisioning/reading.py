"""One record into an `Event`: a strict reading that defines what is good, and a fast one that must agree.

The fast reading decodes into types that leave no room: a key it does not know, containers within containers
beyond what they name, a number beyond the limit, a wrong type, bad UTF-8 all make it give up, and then the
strict one decides. What a typed decoder cannot see is a key that comes twice. Hence the pairs of `"` and
`:` are counted: if a text has exactly as many as its event has keys, then no key came twice, none was
skipped and none is unknown. White space between the two could hide a key, so it makes the strict reading decide;
a text value that begins with a colon only looks like a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
import numpy as np

from decisioning import strict
from decisioning.strict import NUMBER_LIMIT, Malformed

MAX_RECORD_BYTES = 256 * 1024
MAX_ID_CHARACTERS = 512

EventType = Literal["track", "identify", "alias", "page", "screen", "group", "delete"]
TYPES: Final[frozenset[str]] = frozenset(get_args(EventType))

SNAKE: Final = {
    "action": "type",  # so in Segment's examples of e-mail events
    "message_id": "messageId",
    "user_id": "userId",
    "anonymous_id": "anonymousId",
    "previous_id": "previousId",
    "group_id": "groupId",
    "sent_at": "sentAt",
    "received_at": "receivedAt",
    "original_timestamp": "originalTimestamp",
}

_Id = Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARACTERS)]
_Number = Annotated[float, msgspec.Meta(ge=-NUMBER_LIMIT, le=NUMBER_LIMIT)]
_Scalar = bool | _Number | str | None
_Value1 = bool | _Number | str | list[_Scalar] | dict[str, _Scalar] | None
_Value2 = bool | _Number | str | list[_Value1] | dict[str, _Value1] | None
_Values = Mapping[str, bool | _Number | str | list[_Value2] | dict[str, _Value2] | None]

Properties = Mapping[str, Any]
"""What JSON can hold, every number as a float."""

_ABSENT: Final[Properties] = MappingProxyType({})  # one for all: no event pays for it, and `is` tells it from {}


class Event(
    msgspec.Struct,
    gc=False,
    rename={
        "message_id": "messageId",
        "user_id": "userId",
        "anonymous_id": "anonymousId",
        "previous_id": "previousId",
        "group_id": "groupId",
        "project_id": "projectId",
        "sent_at": "sentAt",
        "original_timestamp": "originalTimestamp",
        "received_at": "receivedAt",
        "props": "properties",
        "metadata": "_metadata",
    },
):
    """One event, as far as every event is looked at; `body` has all of it.

    Attributes
    ----------
    person
        `user_id`, else `anonymous_id`.
    event
        Name of a track event, after aliases; None for other types.
    at_ms
        When it happened, in milliseconds since the epoch: never more than 5 minutes after or 400 days before
        `record_ms`, the record's own time.
    clamped
        Whether the record's own time stands for a time that was absent or out of those bounds.
    timezone
        `context.timezone`, if it is a text.
    props, traits, context
        Empty where absent. Numbers are floats; anything may be mistyped: see `number` and `text`.
    """

    message_id: _Id
    type: EventType
    user_id: _Id | None = None
    anonymous_id: _Id | None = None
    previous_id: _Id | None = None
    event: str | None = None
    timestamp: datetime | None = None
    sent_at: datetime | None = None
    original_timestamp: datetime | None = None
    received_at: datetime | None = None
    props: _Values = _ABSENT
    traits: _Values = _ABSENT
    context: _Values = _ABSENT
    # Known and not used: without them the events of every Segment SDK would need the strict reading.
    channel: str = ""
    version: str | float = ""
    name: str = ""
    category: str = ""
    group_id: str = ""
    project_id: str = ""
    integrations: _Values = _ABSENT
    metadata: _Values = _ABSENT
    # Derived; a record cannot set them, since the fast reading does not count them as known.
    person: str = ""
    at_ms: int = 0
    record_ms: int = 0
    clamped: bool = False
    timezone: str | None = None


_event = msgspec.json.Decoder(Event).decode
_WORTHWHILE = 4  # records: below, the vectors' 18 µs cost more than the strict reading's 8 µs each
_QUOTE, _COLON, _SPACE, _MINUS = b'": -'


def key_counts(values: Sequence[bytes]) -> tuple[list[int], bool]:
    """Look at the colons of all texts at once, which costs a tenth of looking at each text.

    Returns
    -------
    counts
        Of each text, how many keys it can have at most; -1 where the strict reading has to look.
    signed
        Whether there may be a negative number among the values of any object.
    """
    if len(values) < _WORTHWHILE:
        return [-1] * len(values), True
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    if lengths.max() > MAX_RECORD_BYTES:  # refused by its length, so nobody need look at its colons
        values = [value if len(value) <= MAX_RECORD_BYTES else b"" for value in values]
        lengths[lengths > MAX_RECORD_BYTES] = 0
    blob = b" ".join([*values, b""])
    data = np.frombuffer(blob, np.uint8)
    starts = np.cumsum(lengths + 1) - (lengths + 1)
    colons = np.flatnonzero(data == _COLON)
    before, after = data[colons - 1], data[colons + 1]
    bounds = np.searchsorted(colons[before == _QUOTE], [*starts, len(data)])
    counts = np.diff(bounds)
    spaced = colons[before <= _SPACE]
    earlier = data[spaced - 2]
    spaced = spaced[(earlier == _QUOTE) | (earlier <= _SPACE)]  # not `Titre : texte`
    counts[np.searchsorted(starts, spaced, side="right") - 1] = -1
    counts[lengths == 0] = -1
    found: list[int] = counts.tolist()
    return found, bool(((after == _MINUS) | (after <= _SPACE)).any())


def fast_event(value: bytes, keys: int) -> Event | None:
    """Decode, or give up with None. `keys` is from `key_counts`."""
    if keys < 0:
        return None
    try:
        event = _event(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    props, context = event.props, event.context
    known = 2  # messageId and type
    if event.user_id:
        known += 1
    if event.event:
        known += 1
    if event.timestamp is not None:
        known += 1
    if props is not _ABSENT:
        known += 1 + len(props)
    if context is not _ABSENT:
        known += 1 + len(context)
        for one in context.values():  # `library`, `page`, … of every SDK
            if type(one) is dict:
                known += len(one)
    if known != keys:
        known += _rarer_keys(event)
    if known != keys and _known_keys(event) != keys:
        return None
    return event


def _rarer_keys(event: Event) -> int:
    """Count what SDKs send beside the rest, all of it at the top."""
    return (
        (event.anonymous_id is not None and event.anonymous_id != "")
        + (event.sent_at is not None)
        + (event.received_at is not None)
        + (event.original_timestamp is not None)
        + (event.channel != "")
        + (event.version != "")
        + (event.integrations is not _ABSENT and 1 + len(event.integrations))
    )


_COUNTED = tuple(
    name
    for name in Event.__struct_fields__
    if name not in {"message_id", "type", "person", "at_ms", "record_ms", "clamped", "timezone"}
)


def _known_keys(event: Event) -> int:
    """Count the keys that an event was decoded from, but those whose value is an empty text or null."""
    known = 2
    for name in _COUNTED:
        value = getattr(event, name)
        if value is not _ABSENT and value is not None and value != "":
            known += 1 + _nested_keys(value)
    return known


def _nested_keys(value: Any) -> int:
    if type(value) is dict:
        return len(value) + sum(_nested_keys(one) for one in value.values() if type(one) in _CONTAINERS)
    if type(value) is list:
        return sum(_nested_keys(one) for one in value if type(one) in _CONTAINERS)
    return 0


_CONTAINERS = frozenset((dict, list))


def strict_event(value: bytes) -> Event:
    """Read without hurry. What both readings leave to `events.decode` is checked there.

    Raises
    ------
    Malformed
    """
    if not value:
        raise Malformed("empty", "the record has no value")
    if len(value) > MAX_RECORD_BYTES:
        raise Malformed("too_large", f"larger than {MAX_RECORD_BYTES} bytes")
    document = strict.parse(value)
    if type(document) is not dict:
        raise Malformed("not_an_object", "an event is a JSON object")
    document = camel_case(document)
    ids = {name: _string(document, name) for name in ("messageId", "userId", "anonymousId", "previousId")}
    for name, one in ids.items():
        if len(one) > MAX_ID_CHARACTERS:
            raise Malformed("id_too_long", f"{name} is longer than {MAX_ID_CHARACTERS} characters")
    kind = _string(document, "type")
    if kind not in TYPES:
        raise Malformed("unknown_type", f"type is none of {', '.join(sorted(TYPES))}")
    return Event(
        message_id=ids["messageId"],
        type=kind,  # type: ignore[arg-type] # just looked up
        user_id=ids["userId"] or None,
        anonymous_id=ids["anonymousId"] or None,
        previous_id=ids["previousId"] or None,
        event=_string(document, "event") or None,
        timestamp=moment(document.get("timestamp"), "timestamp"),
        sent_at=moment(document.get("sentAt"), "sentAt"),
        original_timestamp=moment(document.get("originalTimestamp"), "originalTimestamp"),
        received_at=moment(document.get("receivedAt"), "receivedAt"),
        props=_object(document, "properties", bounded=True),
        traits=_object(document, "traits", bounded=True),
        context=_object(document, "context", bounded=False),
    )


def camel_case(document: dict[str, Any]) -> dict[str, Any]:
    """Rename the envelope's snake case keys, in place.

    Raises
    ------
    Malformed
        ``duplicate_key``: both forms are there and disagree.
    """
    for snake in document.keys() & SNAKE.keys():
        camel = SNAKE[snake]
        if camel == "type" and camel in document:
            continue  # an event may have a field of that name of its own
        if document.setdefault(camel, document[snake]) != document[snake]:
            raise Malformed("duplicate_key", f"{snake} and {camel} disagree")
        del document[snake]
    return document


def _string(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if value is None:
        return ""
    if type(value) is not str:
        raise Malformed("wrong_type", f"{name} is not a text")
    return value


def _object(document: dict[str, Any], name: str, *, bounded: bool) -> Properties:
    value = document.get(name)
    if value is None:
        return _ABSENT
    if type(value) is not dict:
        raise Malformed("wrong_type", f"{name} is not an object")
    if bounded:
        strict.check_numbers(value, name)
    made: Properties = _floats(value)
    return made


def moment(value: Any, name: str) -> datetime | None:
    """Parse an RFC 3339 time; None where it is absent.

    Raises
    ------
    Malformed
        ``wrong_type, bad_time``.
    """
    if value is None:
        return None
    if type(value) is not str:
        raise Malformed("wrong_type", f"{name} is not a text")
    try:
        return msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        raise Malformed("bad_time", f"{name} is not an RFC 3339 time") from None


def _floats(value: Any) -> Any:
    """Numbers as floats, as the fast reading gives them."""
    match value:
        case bool():
            return value
        case int():
            return float(value)
        case dict():
            return {key: _floats(one) for key, one in value.items()}
        case list():
            return [_floats(one) for one in value]
    return value
