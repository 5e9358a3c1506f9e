"""Records that cannot be events, as they are put aside: the original bytes, and why in Kafka Connect's headers."""

from __future__ import annotations

from typing import Final

from decisioning.effects import DeadLetter, Headers, Outgoing

# The topic takes 16 MiB; what does not fit even there is cut, for a record must never stop its partition.
MOST_BYTES: Final = 15 << 20
PREFIX: Final = "__connect.errors."


def publishable(letter: DeadLetter) -> Outgoing:
    """The record for the topic `dead-letters`."""
    record = letter.record
    headers: Headers = (
        (PREFIX + "topic", record.topic.encode()),
        (PREFIX + "partition", str(record.partition).encode()),
        (PREFIX + "offset", str(record.offset).encode()),
        (PREFIX + "stage", b"VALUE_CONVERTER"),
        (PREFIX + "exception.class.name", letter.reason.encode()),
        (PREFIX + "exception.message", letter.message.encode()),
    )
    key, value = record.key, record.value or b""
    if len(key or b"") + len(value) > MOST_BYTES:
        headers += (("decisioning.truncated.bytes", str(len(key or b"") + len(value)).encode()),)
        key = (key or b"")[:MOST_BYTES]
        value = value[: MOST_BYTES - len(key)]
    return Outgoing(key, value, headers)
