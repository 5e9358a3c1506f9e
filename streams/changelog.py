"""The changelog's two kinds of records: a person's post-image, and the marker that ends every step.

A post-image is all there is to know about a person, so that the latest one alone restores them (the topic is
compacted) and applying it twice changes nothing. Nobody is ever deleted by a tombstone: erasure is a value too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from streams.seams import Changes, Entry

VERSION: Final = 1
NO_TIMER: Final = -1
MARKER_KEY: Final = b"\xff"  # not UTF-8, so nobody's id

_HEAD = struct.Struct("<BqI")  # version, earliest timer, bytes of the row; the row and the profile follow


class CorruptError(ValueError):
    """Bytes of the changelog that we did not write."""


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """What a step was: with the records between its offsets and those before, enough to compute it again.

    Attributes
    ----------
    n
        Number of the step, counted from 1 for each partition.
    offsets
        Input -> next offset to read after it.
    now_ms
        The time it was computed at.
    fire_until_ms
        Timers due at or before this fired in it; None: none did.
    expired
        People who were proposed to it as idle for too long.
    partitions
        How many partitions `events` had.
    versions
        What it was computed with: configuration, models, catalog.
    """

    n: int
    offsets: dict[str, int]
    now_ms: int
    fire_until_ms: int | None = None
    expired: list[str] = []
    partitions: int
    versions: dict[str, str] = {}


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata of the committed offsets: the step, the changelog position after it, the number of partitions."""

    n: int
    d: int
    partitions: int


_encoder = msgspec.json.Encoder()
_marker = msgspec.json.Decoder(Marker)
_position = msgspec.json.Decoder(Position)
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)  # what a decoder raises, whatever the bytes


def encode_marker(marker: Marker) -> bytes:
    """The marker's bytes."""
    return _encoder.encode(marker)


def decode_marker(value: bytes) -> Marker:
    """The marker; raises `CorruptError`."""
    try:
        return _marker.decode(value)
    except _UNREADABLE as error:
        raise CorruptError(f"marker: {error}") from error


def encode_position(position: Position) -> str:
    """As the text that is committed with the offsets (the broker keeps at most 4 KB of it)."""
    return _encoder.encode(position).decode()


def decode_position(text: str) -> Position | None:
    """None if the offsets were committed by somebody else, as a reset by hand does."""
    try:
        return _position.decode(text)
    except _UNREADABLE:
        return None


def encode_images(
    people: Sequence[str], rows: Sequence[bytes], profiles: Sequence[bytes], due: Sequence[int | None]
) -> list[tuple[bytes, bytes]]:
    """Keys and values of people's post-images."""
    pack, version, none = _HEAD.pack, VERSION, NO_TIMER
    return [
        (person.encode(), pack(version, none if due_ms is None else due_ms, len(row)) + row + profile)
        for person, row, profile, due_ms in zip(people, rows, profiles, due, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Image:
    """A person's post-image, still encoded inside."""

    row: bytes
    profile: bytes
    due_ms: int | None


def decode_image(value: bytes) -> Image:
    """Take a post-image apart; raises `CorruptError`."""
    if len(value) < _HEAD.size or value[0] != VERSION:
        raise CorruptError(f"post-image of {len(value)} bytes, version {value[:1].hex() or 'none'}, expected {VERSION}")
    _, due_ms, row_bytes = _HEAD.unpack_from(value)
    end = _HEAD.size + row_bytes
    if end > len(value):
        raise CorruptError(f"post-image of {len(value)} bytes, its row alone has {row_bytes}")
    return Image(value[_HEAD.size : end], value[end:], None if due_ms == NO_TIMER else due_ms)


def latest(entries: Iterable[Entry]) -> Mapping[str, Image]:
    """The last post-image of each person in a run of records; raises `CorruptError`."""
    values = {entry.key: entry.value for entry in entries if entry.key != MARKER_KEY}
    try:
        return {key.decode(): decode_image(value) for key, value in values.items()}
    except UnicodeDecodeError as error:
        raise CorruptError(f"a key is nobody's id: {error.reason} at byte {error.start}") from error


def changes(images: Mapping[str, Image]) -> Changes:
    """What to write into a view so that these people are as in their post-images."""
    return Changes(
        people=list(images),
        rows=[image.row for image in images.values()],
        profiles={person: image.profile for person, image in images.items()},
        due={person: image.due_ms for person, image in images.items()},
    )
