"""Bytes into events, or the reason why not.

The verdict on a record depends on its bytes and its append time alone: not on its batch, not on the
configuration, not on which campaign would have looked at it. So everything is checked for every record, and
nothing in `body`. What a good record may still contain: anything mistyped or absurd within properties,
traits and context but for numbers beyond ±1e15 and negative amounts; numbers of any size elsewhere; fields
nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import numpy as np
import orjson

from decisioning import strict
from decisioning.effects import DeadLetter, Record
from decisioning.reading import Event, Properties, camel_case, fast_event, key_counts, moment, strict_event
from decisioning.strict import Malformed

__all__ = ["Decoded", "Event", "Properties", "arrival_ms", "body", "claimed_ms", "decode", "number", "text"]

LATE_LIMIT_MS: Final = 400 * 86_400_000
EARLY_LIMIT_MS: Final = 5 * 60_000
END_OF_TIME_MS: Final = 7_258_118_400_000  # 2200-01-01T00:00:00Z
AMOUNTS: Final = ("price", "quantity", "revenue")


@dataclass(slots=True)
class Decoded:
    """What became of a batch.

    Attributes
    ----------
    events, records
        Event i was read from record i.
    rejected
        The others, in order.
    """

    events: list[Event] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    rejected: list[DeadLetter] = field(default_factory=list)

    @property
    def clamped(self) -> int:
        """How many events count at their record's own time because they had no usable one."""
        return sum(event.clamped for event in self.events)


def decode(records: Sequence[Record], aliases: Mapping[str, str]) -> Decoded:
    """Decode a batch; no input makes it raise.

    Parameters
    ----------
    aliases
        Other names of events -> the name they count as.
    """
    out = Decoded()
    keep, keep_record = out.events.append, out.records.append
    values = [record.value or b"" for record in records]
    counts, signed = key_counts(values)
    for record, value, keys in zip(records, values, counts, strict=True):
        try:
            event = fast_event(value, keys)
            if event is None:
                event = strict_event(value)
            if signed:
                _check_amounts(event.props)
            _derive(event, record.timestamp, aliases)
        except Malformed as error:
            out.rejected.append(DeadLetter(record, error.reason, error.message))
        else:
            keep(event)
            keep_record(record)
    return out


def body(record: Record, aliases: Mapping[str, str]) -> dict[str, Any]:
    """Give the whole event of a record that `decode` kept, as it was received, for rules and texts.

    Numbers are as written (ints stay ints). Snake case is made camel case, the event's name is the one after
    aliases, and a number that no double can hold, as only fields without a meaning may have, is None.
    """
    value = record.value or b""
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        document = _finite(strict.parse(value))
    document = camel_case(document)
    if document["type"] == "track":
        name = document["event"]
        document["event"] = aliases.get(name, name)
    return document


class _Arrival(msgspec.Struct):
    receivedAt: Any = None  # noqa: N815 - as on the wire
    received_at: Any = None
    timestamp: Any = None


_arrival = msgspec.json.Decoder(_Arrival).decode


def arrival_ms(value: bytes) -> int | None:
    """When a record of a file arrived: its `receivedAt`, else its `timestamp`; None if it has neither."""
    try:
        found = _arrival(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    for given in (found.receivedAt, found.received_at, found.timestamp):
        try:
            arrived = moment(given, "")
            if arrived is not None:
                return _milliseconds(arrived)
        except Malformed:
            continue
    return None


def claimed_ms(event: Event) -> int:
    """When an event happened by its own word, where that is earlier than what it counts at."""
    if not event.clamped or event.timestamp is None:
        return event.at_ms
    return min(event.at_ms, _milliseconds(event.timestamp))


def number(values: Properties, name: str) -> float:
    """Give a property that ought to be a number; 0.0 where it is absent or something else."""
    value = values.get(name)
    return value if type(value) is float else 0.0


def text(values: Properties, name: str) -> str | None:
    """Give a property that ought to be an id: whole numbers as digits, None for anything else."""
    value = values.get(name)
    if type(value) is str:
        return value or None
    if type(value) is float and value.is_integer():
        return str(int(value))
    return None


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if np.isfinite(value) else None
        case dict():
            return {key: _finite(one) for key, one in value.items()}
        case list():
            return [_finite(one) for one in value]
    return value


def _check_amounts(props: Properties) -> None:
    for key in AMOUNTS:
        value = props.get(key)
        if type(value) is float and value < 0:
            raise Malformed("negative_amount", f"{key} is negative")


def _derive(event: Event, record_ms: int, aliases: Mapping[str, str]) -> None:
    """Set person, event name and times, and check what they need.

    Raises
    ------
    Malformed
        ``no_message_id, no_person, no_event, no_previous_id, time_out_of_range``.
    """
    if not event.message_id:
        raise Malformed("no_message_id", "messageId is missing")
    person = event.user_id or event.anonymous_id
    if not person:
        raise Malformed("no_person", "userId and anonymousId are missing")
    event.person = person
    if event.type == "track":
        name = event.event
        if not name:
            raise Malformed("no_event", "a track event has no event name")
        if name in aliases:
            event.event = aliases[name]
    else:
        event.event = None
        if event.type == "alias" and not event.previous_id:
            raise Malformed("no_previous_id", "an alias has no previousId")
    if event.context:
        zone = event.context.get("timezone")
        if zone and type(zone) is str:
            event.timezone = zone
    at_ms = None if event.timestamp is None else _milliseconds(event.timestamp)
    if event.received_at is not None:
        at_ms = _without_skew_ms(event, at_ms)
    if not 0 <= record_ms < END_OF_TIME_MS:  # a producer may set it, unless the topic uses append times
        raise Malformed("time_out_of_range", "the record's own time is before 1970 or after 2199")
    if at_ms is None or at_ms < record_ms - LATE_LIMIT_MS or at_ms > record_ms + EARLY_LIMIT_MS:
        at_ms = record_ms
        event.clamped = True
    event.at_ms = at_ms
    event.record_ms = record_ms


def _without_skew_ms(event: Event, at_ms: int | None) -> int | None:
    """Segment's rule: what passed on the client's clock is right even where the clock is wrong."""
    if event.received_at is None or event.sent_at is None or event.original_timestamp is None:
        return at_ms
    on_client_ms = _milliseconds(event.sent_at) - _milliseconds(event.original_timestamp)
    corrected_ms = _milliseconds(event.received_at) - on_client_ms
    return corrected_ms if corrected_ms >= 0 else None


def _milliseconds(when: datetime) -> int:
    """Whole milliseconds since the epoch; without a zone it is UTC.

    Raises
    ------
    Malformed
        ``time_out_of_range``: before 1970 or after 2199.
    """
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    at_ms = int(when.timestamp() * 1e3 + 5e-4)  # microseconds are exact to 2e-4 ms in a double
    if not 0 <= at_ms < END_OF_TIME_MS:
        raise Malformed("time_out_of_range", "a time is before 1970 or after 2199")
    return at_ms
