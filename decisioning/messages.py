"""What partitions tell each other on `internal`: events that belong elsewhere, and people who are one person.

A message is published in the transaction of the step that made it and read as an input of the step that applies it,
so it arrives exactly once. Where the broker has no transactions it may arrive again after a crash: a forwarded event is
then known by its message id, a `move` changes nothing the second time, but an `absorb` adds its counts again.
"""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import msgspec
import orjson

from decisioning import profile as profiles
from decisioning.effects import Outgoing
from decisioning.partitioner import partition_of
from decisioning.profile import Profile
from decisioning.reading import MAX_ID_CHARACTERS
from features import rows as feature_rows

_Id = Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARACTERS)]


class Message(msgspec.Struct, omit_defaults=True):
    """One message to the home of `person`.

    - `event`: `value` is an event that counts for `person`; `at_ms` its record's own time.
    - `move`: whatever is held under `person` belongs to `into` from now on, because `by` said so.
    - `absorb`: `row` and `profile` (base64) of `source` are to be added to `person`'s.
    - `erase`: `person` is to be forgotten if it belongs to one of the ids in `path`, which are those of somebody who
      was erased; events up to `at_ms` are as if they had never been. With 0 that somebody was idle for too long.

    `path` otherwise holds the ids it went through, so that a circle of aliases is noticed.
    """

    kind: Literal["event", "move", "absorb", "erase"]
    id: str
    person: _Id
    at_ms: int
    value: str = ""
    into: _Id = ""
    by: str = ""
    source: _Id = ""
    row: str = ""
    profile: str = ""
    path: list[str] = []


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Message)


def decode(value: bytes | None) -> Message | None:
    """The message in a record of `internal`; None where there is none, or what it carries is damaged."""
    try:
        message = _decoder.decode(value or b"")
        if message.kind == "absorb":
            feature_rows.decode(unpack(message.row))
            _check_contents(profiles.decode(unpack(message.profile)))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    named = message.person and (message.into or message.kind != "move") and (message.source or message.kind != "absorb")
    return message if named else None


def _check_contents(profile: Profile) -> None:
    """Raise `ValueError` where a timer's event is not JSON: it would be read when the timer fires."""
    for pending in profile.pending:
        for contents in (pending.first, pending.latest, *pending.candidates):
            orjson.loads(contents.body)


def outgoing(message: Message, partitions: int) -> Outgoing:
    """The record that takes a message to the home of its person."""
    key = message.person.encode("utf-8")
    return Outgoing(key, _encoder.encode(message), partition=partition_of(message.person, partitions))


def pack(data: bytes) -> str:
    """Bytes as text for a message."""
    return base64.b64encode(data).decode("ascii")


def unpack(text: str) -> bytes:
    """The bytes that `pack` was given."""
    return base64.b64decode(text, validate=True)
